"""What the style rules look at: a file of the tree, its text and, for Python, its syntax tree."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file: its path relative to the root, and its text."""

    path: Path
    text: str = field(repr=False)

    @staticmethod
    @functools.cache
    def read(root: Path, path: Path) -> Source | None:
        """Reads a file, once for all who ask; None when it is not text."""
        try:
            return Source(path, (root / path).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            return None

    @cached_property
    def tree(self) -> ast.Module:
        """Syntax tree of a Python file."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the syntax tree of a Python file, in the order of `ast.walk`."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def lines(self) -> list[str]:
        """The file's lines without their ends."""
        return self.text.splitlines()

    def finding(self, where: int | ast.stmt | ast.expr | ast.ExceptHandler, text: str) -> str:
        """Returns a finding as editors and compilers write it."""
        return f"{self.path}:{where if isinstance(where, int) else where.lineno}: {text}"

    def functions(self) -> Iterator[Function]:
        """Yields every function of a Python file, those inside others too."""
        yield from (node for node in self.nodes if isinstance(node, Function))


Rule = Callable[[Source], Iterator[str]]
"""Yields what it finds wrong in one file."""


def apply(rule: Rule, sources: Iterable[Source]) -> list[str]:
    """Returns what a rule finds in some files, in their order."""
    return [finding for source in sources for finding in rule(source)]


def body_without_docstring(function: Function) -> list[ast.stmt]:
    """Returns a function's statements behind its docstring."""
    return function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body


def body_lines(function: Function) -> int:
    """Returns how many lines a function's body has, its docstring apart."""
    body = body_without_docstring(function)
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1 if body else 0


def docstrings(source: Source) -> Iterator[str]:
    """Yields every docstring of a Python file."""
    for node in source.nodes:
        if isinstance(node, ast.Module | ast.ClassDef | Function) and (text := ast.get_docstring(node)):
            yield text


def dotted(node: ast.expr) -> str:
    """Returns a name or chain of attributes as it is written (`asyncio.sleep`); of anything else its last attribute."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return ""


def calls(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.Call]]:
    """Yields every call among some nodes with the dotted name that it calls."""
    for found in nodes:
        if isinstance(found, ast.Call):
            yield dotted(found.func), found
