"""Rules about written pages: the README of a layer, and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lamina_tools.style.source import Source
from lamina_tools.tree import Layer, python_files

GRPCURL_CALLS = 3
CALL = re.compile(r"\bgrpcurl\b.*\b(?:localhost|127\.0\.0\.1):\d+\b.*/")
"""A line that calls a method of a service which listens on this machine."""


def layer_readme(root: Path, layer: Layer) -> list[str]:
    """Returns what a layer's README lacks of its three parts: concept, files in reading order, three calls."""
    path = root / layer.folder / "README.md"
    if not path.exists():
        return [f"{layer.folder}/README.md: missing"]
    page = Source(layer.folder / "README.md", path.read_text())
    return [*_parts(page), *_files(root, layer, page)]


def _parts(page: Source) -> Iterator[str]:
    concept = _heading(page, r"concept")
    reading = _heading(page, r"files|reading order")
    called = [number for number, line in enumerate(page.lines, 1) if CALL.search(line)]
    if concept is None:
        yield page.finding(1, "no heading 'The concept': a README explains the idea before the code")
    if reading is None:
        yield page.finding(1, "no heading 'Files in reading order'")
    elif concept is not None and reading < concept:
        yield page.finding(reading, "the files come before the concept")
    if len(called) < GRPCURL_CALLS:
        yield page.finding(1, f"{len(called)} grpcurl calls; {GRPCURL_CALLS} that work are asked for")
    elif reading is not None and called[-1] < reading:
        yield page.finding(called[-1], "the grpcurl calls come before the files")


def _heading(page: Source, words: str) -> int | None:
    """Returns the line of the first heading that matches, or None."""
    for number, line in enumerate(page.lines, 1):
        if re.match(rf"#{{2,3}} .*(?:{words})", line, re.IGNORECASE):
            return number
    return None


def _files(root: Path, layer: Layer, page: Source) -> Iterator[str]:
    """Yields the modules that a README passes over, and those that it names though they are gone."""
    package = layer.folder / layer.package
    modules = {path.relative_to(package).as_posix() for path in python_files(root, str(package))}
    modules = {path for path in modules if not path.endswith(("__init__.py", "__main__.py"))}
    named = set(re.findall(r"`(?:lamina_\w+/)?([\w/]+\.py)`", page.text))
    for module in sorted(modules):
        if module not in named and module.rpartition("/")[2] not in named:
            yield page.finding(1, f"passes over {package.name}/{module}")
    names = {part for module in modules for part in (module, module.rpartition("/")[2])}
    for name in sorted(named - names - {"__main__.py"}):
        yield page.finding(1, f"names `{name}`, which does not exist")


def links_lead_somewhere(root: Path, page: Source) -> Iterator[str]:
    """Yields the links of a page to files that do not exist."""
    fenced = False
    for number, line in enumerate(page.lines, 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        written = "" if fenced else re.sub(r"`[^`]*`", "", line)  # code is no link
        for target in re.findall(r"\]\(([^)\s]+)\)", written):
            path = target.partition("#")[0]
            elsewhere = not path or "://" in path or path.startswith("mailto:")
            if not elsewhere and not (root / page.path.parent / path).exists():
                yield page.finding(number, f"links to {target}, which does not exist")
