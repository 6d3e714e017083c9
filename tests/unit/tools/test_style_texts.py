"""The rules for texts find the words that they are for, and leave alone those that only look like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_tools.style import texts
from lamina_tools.style.source import Rule, Source

PAGE = "docs/page.md"

FOUND = [
    (texts.nothing_is_unfinished, PAGE, "TODO: the rest"),
    (texts.nothing_is_unfinished, PAGE, "a Placeholder until then"),
    (texts.nothing_is_unfinished, PAGE, "raise NotImplementedError"),
    (texts.nothing_is_unfinished, PAGE, "in a real system this would be checked"),
    (texts.no_place_of_one_machine, PAGE, "see /work/main/kit"),
    (texts.no_place_of_one_machine, PAGE, "`/home/ann/lamina`"),
    (texts.no_registry, PAGE, "https://pypi.org/simple"),
    (texts.no_registry, PAGE, "pull from docker.io"),
    (texts.no_author, PAGE, "written by an AI"),
]

RIGHT = [
    (texts.nothing_is_unfinished, PAGE, "mktemp XXXXXX; autodoc; a method of todos"),
    (texts.nothing_is_unfinished, PAGE, "isinstance(error, NotImplementedError)"),
    (texts.nothing_is_unfinished, "tests/contract/kit/conftest.py", "raise NotImplementedError"),
    (texts.no_place_of_one_machine, PAGE, "upperdir=/var/x/work/main and /workers/main"),
    (texts.no_registry, PAGE, "the image docker.io/library/busybox:1.36"),
    (
        texts.no_registry,
        "services/container-runtime/lamina_container_runtime/domain/images/reference.py",
        '"docker.io"',
    ),
    (texts.no_author, PAGE, "AIP style; MAIN; the AIs of nobody"),
]


@pytest.mark.parametrize(("rule", "path", "text"), FOUND)
def test_rules_find(rule: Rule, path: str, text: str) -> None:
    """A rule finds the words that it forbids, and says in which line."""
    (finding,) = rule(Source(Path(path), f"first line\n{text}\n"))
    assert finding.startswith(f"{path}:2: ")


@pytest.mark.parametrize(("rule", "path", "text"), RIGHT)
def test_rules_leave_alone(rule: Rule, path: str, text: str) -> None:
    """A rule leaves alone what only looks like what it forbids."""
    assert list(rule(Source(Path(path), text))) == []


def test_every_rule_is_shown_finding_something() -> None:
    """No rule is without a case that it finds and one that it leaves alone."""
    assert {rule for rule, _, _ in FOUND} == set(texts.RULES)
    assert {rule for rule, _, _ in RIGHT} == set(texts.RULES)
