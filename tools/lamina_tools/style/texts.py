"""Rules about every text of the tree: words that promise work instead of doing it, places that exist on one machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lamina_tools.style.source import Source

UNFINISHED = re.compile(
    r"\b(TODO|FIXME|XXX|HACK)\b|\braise NotImplementedError\b|\b(?i:placeholder|simplified|simplistic|not a real|toy)\b"
    r"|(?i:\bin a real (?:system|implementation|world|kernel|deployment)\b|\bin a production (?:system|setting)\b"
    r"|\bleft as an exercise\b|\bwould normally\b)"
)
"""Words of code that is not done."""

MACHINE_PATHS = re.compile(r"(?<![\w.}/-])(/work/(?:main|shared|\.\w+)\b|/home/[a-z]\w*/|/Users/\w+/|/root/\.)")
"""Absolute paths of somebody's machine."""

REGISTRIES = re.compile(
    r"\b(pypi\.org|pythonhosted\.org|deb\.debian\.org|ftp\.debian\.org|archive\.ubuntu\.com|registry\.npmjs\.org"
    r"|proxy\.golang\.org|crates\.io|docker\.io|docker\.com|ghcr\.io|quay\.io|gcr\.io|registry\.k8s\.io)\b(?!/library/)"
)
"""Hosts that serve packages or images; which one is used is a matter of the machine's configuration.

`docker.io/library/NAME` is the full name of an image, whatever serves it.
"""

IMAGE_NAMES = ("services/container-runtime", "tests", ".ci")
"""Where the default prefix of image names, which is the name of a Debian package too, may stand by itself."""

AUTHORS = re.compile(r"\b(?:AI|LLM|Claude|Anthropic|OpenAI|ChatGPT|Copilot)\b")
"""How a text came about is no part of it."""

EXEMPT = (
    Path("tools/lamina_tools/style/texts.py"),
    Path("tests/unit/tools/test_style_texts.py"),
    Path("LICENSE"),
)
"""Files that name the words in order to forbid them, or that are not ours to word."""


def _lines(source: Source, pattern: re.Pattern[str], text: str) -> Iterator[str]:
    if source.path not in EXEMPT:
        for number, line in enumerate(source.lines, 1):
            for match in pattern.finditer(line):
                yield source.finding(number, text.format(match[0]))


def nothing_is_unfinished(source: Source) -> Iterator[str]:
    """No text speaks of work that is not done; what a layer cannot do yet is said in issues and in docs/systems.md."""
    for finding in _lines(source, UNFINISHED, "{!r} speaks of work that is not done; do it, or leave it out"):
        if "raise NotImplementedError" not in finding or source.path.parts[0] != "tests":  # tests raise what they test
            yield finding


def no_place_of_one_machine(source: Source) -> Iterator[str]:
    """No text names a path of somebody's machine."""
    yield from _lines(source, MACHINE_PATHS, "{!r} exists on one machine only")


def no_registry(source: Source) -> Iterator[str]:
    """No text names a package registry; an image's full name may begin with its registry."""
    for finding in _lines(source, REGISTRIES, "{!r} is a registry's host; which one serves is configuration"):
        if "'docker.io'" not in finding or not str(source.path).startswith(IMAGE_NAMES):
            yield finding


def no_author(source: Source) -> Iterator[str]:
    """No text says what wrote it."""
    yield from _lines(source, AUTHORS, "{!r}: how a text came about is no part of it")


RULES = (nothing_is_unfinished, no_place_of_one_machine, no_registry, no_author)
