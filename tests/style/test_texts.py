"""The rules for every text of the tree."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from lamina_tools.style import texts
from lamina_tools.style.pages import links_lead_somewhere
from lamina_tools.style.source import Rule, Source, apply
from lamina_tools.style.verdict import expect_none
from lamina_tools.tree import ROOT, files

GENERATED = (Path("protos/gen"), Path("docs/rpc"))


@functools.cache
def sources() -> tuple[Source, ...]:
    """Returns the written texts of the tree, read once for all rules."""
    paths = [path for path in files(ROOT) if not any(path.is_relative_to(folder) for folder in GENERATED)]
    return tuple(source for path in paths if (source := Source.read(ROOT, path)))


@pytest.mark.parametrize("rule", texts.RULES, ids=lambda rule: rule.__name__)
def test_texts_follow_the_rules(rule: Rule) -> None:
    """No text of the tree breaks a rule of the house."""
    expect_none(apply(rule, sources()), rule.__doc__)


def test_links_lead_somewhere() -> None:
    """Every relative link of every page leads to a file of the tree."""
    pages = [source for path in files(ROOT) if path.suffix == ".md" and (source := Source.read(ROOT, path))]
    expect_none(finding for page in pages for finding in links_lead_somewhere(ROOT, page))
