"""The memory of the machine's own processes through the command line, as the README walks through it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli.conftest import Lamina

from lamina_mmu.engines.linux.engine import LinuxEngine

MANY = """
import mmap, sys
kept = [mmap.mmap(-1, 4096, prot=1 + 2 * (number % 2)) for number in range(300)]
print("mapped", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Returns where an MMU on the kernel is served."""
    reasons = LinuxEngine.missing()
    if reasons:
        pytest.skip(f"engine linux: {'; '.join(reasons)}")
    words = ["--engine", "linux", "--state-dir", str(tmp_path / "state"), "--listen", "127.0.0.1:0"]
    served = subprocess.Popen([sys.executable, "-m", "lamina_mmu", *words], stderr=subprocess.PIPE, text=True)
    assert served.stderr is not None
    with served, served.stderr:
        try:
            found = next(match[0] for line in served.stderr if (match := re.search(r"127\.0\.0\.1:[1-9]\d*", line)))
            yield found
        finally:
            served.terminate()
            served.wait(30)


@pytest.mark.skipif(os.geteuid() != 0, reason="paging out another process needs root")
def test_a_process_is_looked_at_and_reclaimed(tmp_path: Path, address: str) -> None:
    """All its mappings are listed, an address is translated without a table of nothing, its pages are reclaimed."""
    lamina, at = Lamina(tmp_path), ("--at", f"mmu={address}")
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", MANY], **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert lamina.json("mmu", "attach", str(process.pid), *at)["name"] == "hosts/h1/spaces/s-1"
        listed = lamina.json("mmu", "maps", "s-1", *at)
        assert len(listed) > 200
        start = next(int(one["start"]) for one in listed if one["label"] == "[stack]")
        end = next(int(one["end"]) for one in listed if int(one["start"]) == start)
        told = lamina.run("mmu", "translate", "s-1", hex(end - 4096), *at).stdout.splitlines()
        assert len(told) == 2 and told[1].startswith("in RAM")
        assert "reclaimed_pages" in lamina.json("mmu", "reclaim", "16", "--space", "s-1", *at)
        assert "SPACE_UNKNOWN" in lamina.run("mmu", "reclaim", "16", "--space", "s-9", *at, expect=1).stderr
