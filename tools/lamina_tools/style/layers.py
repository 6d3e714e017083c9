"""Rules about the code of the layers: what pure code may not do, how servers and errors look."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from lamina_tools.style.source import Source, body_lines, calls, docstrings, dotted

SERVER_LINES = 10

IMPURE_CALLS = {
    "open": "does I/O",
    "print": "does I/O",
    "input": "does I/O",
    "breakpoint": "does I/O",
    "id": "depends on where the interpreter puts an object",
    "hash": "depends on the process for text and bytes",
    "eval": "runs what it is given",
    "exec": "runs what it is given",
    "__import__": "imports past the import rules",
    "datetime.now": "reads a clock",
    "datetime.utcnow": "reads a clock",
    "datetime.datetime.now": "reads a clock",
    "datetime.today": "reads a clock",
    "date.today": "reads a clock",
}
"""What a call of each means for code that must give the same result for the same input."""

BUILTIN_ERRORS = frozenset(
    {
        "Exception",
        "BaseException",
        "RuntimeError",
        "ValueError",
        "TypeError",
        "KeyError",
        "IndexError",
        "OSError",
        "LookupError",
        "ArithmeticError",
        "OverflowError",
        "PermissionError",
        "FileNotFoundError",
        "TimeoutError",
    }
)
"""Errors that carry no code, no reason and no next step."""

KIT_ERRORS = frozenset(
    {
        "InvalidArgument",
        "NotFound",
        "AlreadyExists",
        "FailedPrecondition",
        "ResourceExhausted",
        "PermissionDenied",
        "Unavailable",
        "Aborted",
        "OutOfRange",
        "DeadlineExceeded",
        "Cancelled",
        "Unimplemented",
        "DataLoss",
        "Internal",
    }
)


def is_pure(source: Source) -> bool:
    """Says whether a file belongs to a layer's pure part: `domain/` or `engines/model/`."""
    parts = source.path.parts
    return parts[0] == "services" and ("domain" in parts or ("engines" in parts and "model" in parts))


def pure_code_is_pure(source: Source) -> Iterator[str]:
    """Pure code opens, prints and evaluates nothing, and asks for no identity, time or chance."""
    if not is_pure(source):
        return
    for name, call in calls(source.nodes):
        if name in IMPURE_CALLS:
            yield source.finding(call, f"{name}() {IMPURE_CALLS[name]}; pure code takes that from its caller")
        elif name.startswith(("np.random.", "numpy.random.")):
            yield source.finding(call, f"{name}() is chance; pure code takes an Rng from its caller")


def sets_are_not_iterated(source: Source) -> Iterator[str]:
    """Pure code iterates over no set as such: its order depends on the process. `sorted(…)` around it is fine."""
    if not is_pure(source):
        return
    for node in source.nodes:
        for iterated in _iterated(node):
            if isinstance(iterated, ast.Set | ast.SetComp) or (
                isinstance(iterated, ast.Call) and dotted(iterated.func) in ("set", "frozenset")
            ):
                yield source.finding(iterated, "iterates over a set, whose order depends on the process; sort it")


def _iterated(node: ast.AST) -> Iterator[ast.expr]:
    """Yields what a loop or a comprehension with an order runs over."""
    if isinstance(node, ast.For | ast.AsyncFor):
        yield node.iter
    elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp):
        yield from (generator.iter for generator in node.generators)
    elif isinstance(node, ast.Call) and dotted(node.func) in ("list", "tuple", "enumerate", "iter", "next"):
        yield from node.args[:1]


def servers_only_translate(source: Source) -> Iterator[str]:
    """A method that serves an RPC has at most ten lines: parse, call, convert."""
    if source.path.parts[0] != "services":
        return
    for node in source.nodes:
        if isinstance(node, ast.ClassDef) and any(dotted(base).endswith("Servicer") for base in node.bases):
            for method in node.body:
                if (
                    isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                    and method.name[0].isupper()
                    and (lines := body_lines(method)) > SERVER_LINES
                ):
                    yield source.finding(
                        method, f"{node.name}.{method.name} has {lines} lines; {SERVER_LINES} is the limit"
                    )


def errors_are_the_kit_s(source: Source) -> Iterator[str]:
    """Layers raise the kit's errors, which carry a code, a reason and a next step; never Python's own.

    A pure parser may raise `ValueError` when its module's docstrings say so: its caller knows the field's name.
    """
    if source.path.parts[0] != "services":
        return
    parser = is_pure(source) and any("ValueError" in text for text in docstrings(source))
    for node in source.nodes:
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if dotted(raised) in BUILTIN_ERRORS and not (parser and dotted(raised) == "ValueError"):
                yield source.finding(node, f"raises {dotted(raised)}; raise one of lamina_kit.errors, with a reason")


def reasons(source: Source) -> Iterator[tuple[ast.Call, str]]:
    """Yields the reason of every error of the kit that a file makes, where it is written there as text."""
    for name, call in calls(source.nodes):
        if name.rpartition(".")[2] in KIT_ERRORS:
            for keyword in call.keywords:
                if (
                    keyword.arg == "reason"
                    and isinstance(keyword.value, ast.Constant)
                    and isinstance(keyword.value.value, str)
                ):
                    yield call, keyword.value.value


def reasons_are_upper_snake(source: Source) -> Iterator[str]:
    """A reason is a constant for programs: UPPER_SNAKE."""
    for call, reason in reasons(source):
        if not re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", reason):
            yield source.finding(call, f"the reason {reason!r} is not UPPER_SNAKE")


RULES = (
    pure_code_is_pure,
    sets_are_not_iterated,
    servers_only_translate,
    errors_are_the_kit_s,
    reasons_are_upper_snake,
)
