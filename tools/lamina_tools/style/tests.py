"""Rules about tests: each says what it specifies, can fail, and does not sleep."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lamina_tools.style.source import Function, Source, calls, dotted

SLEEPS = frozenset({"time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep", "sleep"})
FAILING_CALLS = frozenset({"pytest.raises", "pytest.fail", "pytest.warns", "pytest.deprecated_call", "raises"})
FAILING_PREFIXES = ("check", "expect", "assert", "run_state_machine_as_test")


def tests_of(source: Source) -> Iterator[Function]:
    """Yields the test functions of a file that pytest collects from."""
    if source.path.parts[0] == "tests" and source.path.name.startswith("test_"):
        yield from (function for function in source.functions() if function.name.startswith("test_"))


def tests_are_documented(source: Source) -> Iterator[str]:
    """Every test has a docstring of one paragraph that ends in a full stop."""
    for test in tests_of(source):
        docstring = (ast.get_docstring(test) or "").strip()
        if not docstring:
            yield source.finding(test, f"{test.name} has no docstring")
        elif "\n\n" in docstring or not docstring.endswith("."):
            yield source.finding(test, f"the docstring of {test.name} is not one sentence with a full stop")


def tests_can_fail(source: Source) -> Iterator[str]:
    """Every test asserts something, itself or through a function whose name or body says that it does."""
    local = {function.name: function for function in source.functions()}
    for test in tests_of(source):
        if not _can_fail(test, local, set()):
            yield source.finding(test, f"{test.name} asserts nothing")


def _can_fail(function: Function, local: dict[str, Function], seen: set[str]) -> bool:
    """Says whether a function asserts; calls to functions of the same file are followed."""
    seen.add(function.name)
    nodes = tuple(ast.walk(function))
    for node in nodes:
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
    for name, _ in calls(nodes):
        last = name.rpartition(".")[2]
        if name in FAILING_CALLS or last.startswith(FAILING_PREFIXES):
            return True
        if last in local and last not in seen and _can_fail(local[last], local, seen):
            return True
    return False


def tests_do_not_sleep(source: Source) -> Iterator[str]:
    """No test waits for time to pass; giving up the turn with `asyncio.sleep(0)` is no waiting.

    On the virtual loop, on which simulations run and tests that import it, nobody waits for `asyncio.sleep`.
    """
    if source.path.parts[0] != "tests" or source.path.name == "conftest.py":
        return
    is_virtual = source.path.parts[1] == "simulation" or "from lamina_kit.virtual.loop import" in source.text
    for name, call in calls(source.nodes):
        yields = len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
        if is_virtual and name == "asyncio.sleep":
            continue
        if name in SLEEPS and not yields:
            yield source.finding(call, f"{name}(…) waits for time to pass; wait for the thing itself (`eventually`)")


def skips_say_why(source: Source) -> Iterator[str]:
    """Every skip and expected failure gives a reason."""
    if source.path.parts[0] != "tests":
        return
    for name, call in calls(source.nodes):
        if name in ("pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.skip", "pytest.xfail"):
            given = any(keyword.arg == "reason" for keyword in call.keywords)
            if not given and not (name in ("pytest.skip", "pytest.xfail", "pytest.mark.skip") and call.args):
                yield source.finding(call, f"{name} gives no reason")
    for function in source.functions():
        for decorator in function.decorator_list:
            if dotted(decorator) in ("pytest.mark.skip", "pytest.mark.xfail"):
                yield source.finding(decorator, f"{dotted(decorator)} gives no reason")


RULES = (tests_are_documented, tests_can_fail, tests_do_not_sleep, skips_say_why)
