"""Rules about the shape of Python code: sizes, names, documentation, errors that vanish."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from lamina_tools.style.source import Source, body_lines, body_without_docstring, calls, dotted

MODULE_LINES = 400
FUNCTION_LINES = 60
EXCUSE = f"Longer than {MODULE_LINES} lines because"
SENTENCE = re.compile(r"[\w`/](?:(?![.!?] )[^\n])+\.")
"""One sentence: it ends with the first full stop that is followed by nothing or a space."""

SHAPELESS = frozenset({"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"})


def init_says_what_lives_here(source: Source) -> Iterator[str]:
    """A package's `__init__.py` is one sentence, the rule that decides which line lives there, and holds no code.

    Code would be no way in: the import rules do not see what comes through a parent.
    """
    if source.path.name != "__init__.py":
        return
    sentence = ast.get_docstring(source.tree)
    if sentence is None or len(source.tree.body) > 1:
        yield source.finding(1, "an __init__.py holds one docstring and nothing else; import from modules")
    elif source.text != f'"""{sentence}"""\n' or not SENTENCE.fullmatch(sentence):
        yield source.finding(1, "an __init__.py is one sentence on one line: which lines live in this package")


def module_is_short(source: Source) -> Iterator[str]:
    """A module has at most 400 lines, or its docstring says why not."""
    if len(source.lines) > MODULE_LINES and EXCUSE not in " ".join((ast.get_docstring(source.tree) or "").split()):
        yield source.finding(
            1, f"{len(source.lines)} lines; split at {MODULE_LINES}, or say in the docstring '{EXCUSE} …'"
        )


def functions_are_short(source: Source) -> Iterator[str]:
    """A function's body has at most 60 lines."""
    for function in source.functions():
        if (lines := body_lines(function)) > FUNCTION_LINES:
            yield source.finding(function, f"{function.name} has {lines} lines; {FUNCTION_LINES} is the limit")


def name_says_something(source: Source) -> Iterator[str]:
    """No module or package is called after what it is not: utils, helpers, common, manager."""
    for part in (*source.path.parent.parts, source.path.stem):
        if part in SHAPELESS:
            yield source.finding(1, f"the name {part!r} says nothing; name the one noun that it is about")


def annotations_are_postponed(source: Source) -> Iterator[str]:
    """Every module starts with `from __future__ import annotations`; an `__init__.py` has nothing to annotate."""
    if source.path.name != "__init__.py" and not any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in source.tree.body
    ):
        yield source.finding(1, "begins without `from __future__ import annotations`")


def public_things_are_documented(source: Source) -> Iterator[str]:
    """Every module, and every public class and function of it, has a docstring."""
    if ast.get_docstring(source.tree) is None:
        yield source.finding(1, "the module has no docstring")
    for node in source.tree.body:
        if (
            isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
            and "overload" not in [dotted(decorator) for decorator in node.decorator_list]
        ):
            yield source.finding(node, f"{node.name} has no docstring")


def nothing_is_swallowed(source: Source) -> Iterator[str]:
    """No bare `except`, no handler that only passes, no catching of everything without a word."""
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            yield from _handler(source, node)
    for name, call in calls(source.nodes):
        broad = {dotted(argument) for argument in call.args} & {"Exception", "BaseException"}
        if name in ("contextlib.suppress", "suppress") and broad:
            yield source.finding(call, f"suppress({broad.pop()}) swallows what nobody expected; name the errors")


def _handler(source: Source, handler: ast.ExceptHandler) -> Iterator[str]:
    if handler.type is None:
        yield source.finding(handler, "a bare except; name the errors")
    elif all(
        isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in handler.body
    ):
        yield source.finding(handler, "an error is swallowed; use contextlib.suppress(…) and say why, or handle it")
    elif dotted(handler.type) == "BaseException" and not any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Name) and node.id == handler.name)
        for statement in handler.body
        for node in ast.walk(statement)
    ):
        yield source.finding(handler, "BaseException is caught, not raised again and not handed on")


def nothing_is_left_out(source: Source) -> Iterator[str]:
    """No function of ours is only a shell: `...` or `pass` alone stand in protocols and abstract methods only."""
    for parent in source.nodes:
        if not isinstance(parent, ast.ClassDef | ast.Module):
            continue
        if isinstance(parent, ast.ClassDef) and {dotted(b).rpartition(".")[2] for b in _bases(parent)} & {"Protocol"}:
            continue
        for node in parent.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_shell(node):
                yield source.finding(node, f"{node.name} does nothing; say in its docstring why that is right")


def _bases(node: ast.ClassDef) -> list[ast.expr]:
    return [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]


def _is_shell(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    decorators = {dotted(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    if decorators & {"overload", "abstractmethod"} or ast.get_docstring(function) is not None:
        return False
    return all(
        isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in body_without_docstring(function)
    )


RULES = (
    init_says_what_lives_here,
    module_is_short,
    functions_are_short,
    name_says_something,
    annotations_are_postponed,
    public_things_are_documented,
    nothing_is_swallowed,
    nothing_is_left_out,
)
