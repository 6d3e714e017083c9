"""The example of the README."""

from __future__ import annotations

import re

import pytest

from lamina_tools.tree import ROOT


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what it says that it prints."""
    text = (ROOT / "kit/lamina_net/README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.startswith("(b'who is there?', Endpoint(address=167772161, port=")
