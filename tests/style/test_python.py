"""The rules for Python code, over every folder of code."""

from __future__ import annotations

import functools

import pytest

from lamina_tools.style import layers, modules, tests
from lamina_tools.style.source import Rule, Source, apply
from lamina_tools.style.verdict import expect_none
from lamina_tools.tree import CODE_AREAS, ROOT, python_files


@functools.cache
def sources(area: str) -> tuple[Source, ...]:
    """Returns the Python files of a folder, read once for all rules."""
    return tuple(source for path in python_files(ROOT, area) if (source := Source.read(ROOT, path)))


@pytest.mark.parametrize("rule", [*modules.RULES, *layers.RULES, *tests.RULES], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("area", CODE_AREAS)
def test_code_follows_the_rules(area: str, rule: Rule) -> None:
    """No file of a folder breaks a rule of the house."""
    expect_none(apply(rule, sources(area)), rule.__doc__)
