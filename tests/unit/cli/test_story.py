"""The demo's verdict."""

from __future__ import annotations

import io

from lamina_cli.demo.story import Story


def test_a_story_fails_when_one_check_fails() -> None:
    """One claim that does not hold makes the exit status 1 and is named at the end."""
    out = io.StringIO()
    story = Story(out)
    story.chapter("numbers")
    story.check("two is even", True)
    story.equal("three is even", 3 % 2, 0)
    assert story.end() == 1
    text = out.getvalue()
    assert "✓ two is even" in text
    assert "✗ three is even (found: 1, expected 0)" in text
    assert "did not hold: 1. three is even" in text
    assert "1 of 2 checks hold" in text


def test_a_story_holds_when_all_checks_hold() -> None:
    """If every claim holds the exit status is 0."""
    story = Story(io.StringIO())
    story.chapter("numbers")
    story.check("two is even", True)
    assert story.end() == 0


def test_tables_are_indented() -> None:
    """A table inside a chapter stands below its title."""
    out = io.StringIO()
    Story(out).table(("A", "B"), [("x", 1)])
    assert out.getvalue() == "   A  B\n   x  1\n"
