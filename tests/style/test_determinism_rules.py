"""What would make two runs of one seed differ stays out of the kit and the services (mechanics.md, ADR 0005).

A rule is a function from the nodes of a file's syntax tree to the places that break it. What has to be there all the
same stands in `ALLOWED` with its reason; an entry that nothing needs any more is an error too.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator, Sequence

import pytest

from lamina_tools.style.source import Source
from lamina_tools.style.verdict import expect_none
from lamina_tools.tree import ROOT, python_files

Found = Iterator[tuple[int, str]]
Nodes = Sequence[ast.AST]
"""All nodes of a file's syntax tree."""

RUNTIME = "services/container-runtime/lamina_container_runtime"
HARDWARE = "services/hardware/lamina_hardware"
LINUX = "the engine `linux` alone, which is refused in virtual time"

ALLOWED: dict[str, str] = {
    "kit/lamina_kit/clock.py: time.monotonic_ns": "RealClock is the one that reads the machine's clock",
    "kit/lamina_kit/clock.py: time.time_ns": "RealClock is the one that reads the machine's clock",
    "kit/lamina_kit/gateway/gateway.py: time.monotonic_ns": "the gateway paces virtual time; it logs what enters",
    "kit/lamina_kit/gateway/inner_call.py: gc.collect": "its moment is logged and replayed",
    "kit/lamina_kit/gateway/clock.py: time.monotonic_ns": "how far real time is ahead, shown and never recorded",
    "kit/lamina_kit/gateway/outer_call.py: time.monotonic_ns": "deadlines of callers outside run in real time",
    "kit/lamina_kit/gateway/outer_call.py: asyncio.wait": "on the real loop, where callers outside are served",
    "kit/lamina_kit/gateway/ports.py: os.urandom": "the trace ids of callers outside, which are logged as they enter",
    "kit/lamina_kit/operations/operations.py: run_in_executor": "waits on the real loop for an exporter to end",
    "kit/lamina_kit/operations/otlp_export.py: threading.Thread": "sends what a stack recorded; nothing comes back",
    "kit/lamina_kit/process/main.py: os.urandom": "the seed of a process that was given none; shells choose seeds",
    "kit/lamina_kit/process/clock.py: time.monotonic_ns": "processes of a split stack share the machine's clock",
    "kit/lamina_kit/security/transport.py: time.time": "certificates end by the calendar, whatever time a stack has",
    "kit/lamina_kit/security/socket_owner.py: listdir without sorted": "own sockets to a place, of which all are asked",
    "kit/lamina_kit/security/tls_probe.py: asyncio.to_thread": "looks at a socket beyond the host, on the real loop",
    "kit/lamina_kit/security/tls_probe.py: time.time": "certificates end by the calendar, whatever time a stack has",
    "kit/lamina_kit/telemetry/trace.py: hash": "of a header, for equality; nothing is ordered by it",
    "kit/lamina_kit/virtual/loop.py: gc.collect": "the loop collects after so many callbacks, not after allocations",
    f"{RUNTIME}/runtime.py: asyncio.to_thread": "in real time only; in virtual time archives are unpacked inline",
    f"{HARDWARE}/io/cores/threads.py: threading.Thread": "in real time only; in virtual time cores run on the loop",
    f"{HARDWARE}/io/cores/threads.py: call_soon_threadsafe": "in real time only; in virtual time cores run on the loop",
    f"{HARDWARE}/host_facts.py: asyncio.to_thread": LINUX,
    f"{HARDWARE}/io/kvm/slice_timer.py: threading.Thread": "the engine `kvm` alone, which is refused in virtual time",
    f"{HARDWARE}/io/kvm/slice_timer.py: time.monotonic_ns": "the same: a slice of a processor of the host is a time",
    f"{HARDWARE}/io/kvm/slice_timer.py: time.sleep": "the same, in a thread of its own",
    f"{HARDWARE}/io/native.py: glob without sorted": "deletes stale files, in any order",
    "services/mmu/lamina_mmu/io/performer.py: asyncio.to_thread": "for engines on the kernel, in real time only",
    "services/vswitch/lamina_vswitch/io/backends/bypass.py: time.monotonic_ns": "the kernel stamps by it, in real time",
    "services/vswitch/lamina_vswitch/plane/loading.py: asyncio.to_thread": "in real time only",
    "services/vswitch/lamina_vswitch/nat/translations.py: asyncio.to_thread": f"reads flows; {LINUX}",
    "services/vswitch/lamina_vswitch/engines/linux/nat/machine.py: time.monotonic": f"waits for a lock; {LINUX}",
    "services/vswitch/lamina_vswitch/engines/linux/nat/machine.py: time.sleep": f"waits for a lock; {LINUX}",
    "services/hypervisor/lamina_hypervisor/io/images.py: glob without sorted": "deletes leftovers, in any order",
}

CALLS = {
    "asyncio.to_thread", "asyncio.wait", "asyncio.as_completed", "asyncio.run_coroutine_threadsafe",
    "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns",
    "time.sleep", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow", "datetime.datetime.now",
    "datetime.today", "date.today", "os.urandom", "os.getrandom", "uuid.uuid1", "uuid.uuid4", "threading.Thread",
    "secrets.token_hex", "secrets.token_bytes", "secrets.randbelow", "id", "hash", "gc.collect",
    "concurrent.futures.ThreadPoolExecutor", "ThreadPoolExecutor",
}  # fmt: skip
"""Calls whose outcome or moment depends on the machine or the process."""

METHODS = {"run_in_executor", "call_soon_threadsafe"}
"""Methods of that kind, whatever they are called on."""

UNSORTED = {"iterdir", "glob", "rglob", "listdir", "scandir"}
"""What a file system gives in an order of its own; `os.walk` too."""

ORDERLESS = {"sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset", "bool"}
"""What makes the order of a set or a folder harmless."""

WALKERS = {"list", "tuple", "next", "iter", "enumerate"}
"""What makes a sequence of a set."""

SQL_CLOCK = re.compile(r"CURRENT_TIME|CURRENT_DATE|\bdatetime\('now'|\bjulianday\(|\bunixepoch\(|\bRANDOM\(\)", re.I)
ONE_ROW = re.compile(r"LIMIT 1\b|\b(MAX|MIN|COUNT|COALESCE)\(|WHERE \w+ = [?']|\bIN \(SELECT\b", re.I)


def name_of(node: ast.AST) -> str:
    """Returns the dotted name of an expression, or nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}".lstrip(".")
    return ""


def calls_of_the_machine(tree: Nodes) -> Found:
    """Time comes from the clock, randomness and ids from the `Rng`, work stays on the loop."""
    for node in tree:
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        if name in CALLS:
            yield node.lineno, name
        elif (method := name.rpartition(".")[2]) in METHODS:
            yield node.lineno, method
        elif name.startswith("random.") and name != "random.Random":
            yield node.lineno, name


def walks_over_sets(tree: Nodes) -> Found:
    """A set has no order: it is sorted before it is walked, or only asked what it holds."""
    sets = _names_of_sets(tree)
    harmless = {
        id(generator)
        for node in tree
        if isinstance(node, ast.Call) and name_of(node.func) in ORDERLESS
        for argument in node.args
        if isinstance(argument, ast.GeneratorExp)
        for generator in argument.generators
    }
    for node in tree:
        if isinstance(node, ast.For | ast.AsyncFor) and _is_set(node.iter, sets):
            yield node.iter.lineno, "for over a set"
        elif isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp):
            for generator in node.generators:
                if id(generator) not in harmless and _is_set(generator.iter, sets):
                    yield generator.iter.lineno, "comprehension over a set"
        elif isinstance(node, ast.Call) and name_of(node.func) in WALKERS and _is_set_first(node, sets):
            yield node.lineno, f"{name_of(node.func)} of a set"


def _is_set_first(node: ast.Call, sets: set[str]) -> bool:
    return bool(node.args) and _is_set(node.args[0], sets)


def _names_of_sets(tree: Nodes) -> set[str]:
    """Returns the names and attributes that a file declares as sets."""
    found = set()
    for node in tree:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).partition("[")[0] in ("set", "WeakSet"):
            found.add(name_of(node.target))
        elif isinstance(node, ast.arg) and node.annotation is not None:
            if ast.unparse(node.annotation).partition("[")[0] in ("set", "frozenset"):
                found.add(node.arg)
        elif isinstance(node, ast.Assign) and _is_set(node.value, set()):
            found.update(name for target in node.targets if (name := name_of(target)))
    return found


def _is_set(node: ast.AST, known: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return name_of(node.func) in ("set", "frozenset", "WeakSet", "weakref.WeakSet", "asyncio.all_tasks")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr | ast.Sub | ast.BitXor):
        return _is_set(node.left, known) or _is_set(node.right, known)
    return bool(name_of(node)) and name_of(node) in known


def folders_in_their_own_order(tree: Nodes) -> Found:
    """What a file system lists is sorted."""
    sorted_ones = {
        id(inner)
        for node in tree
        if isinstance(node, ast.Call) and name_of(node.func) in ORDERLESS
        for inner in ast.walk(node)
    }
    for node in tree:
        if isinstance(node, ast.Call) and id(node) not in sorted_ones and isinstance(node.func, ast.Attribute):
            unsorted = node.func.attr in UNSORTED or name_of(node.func) == "os.walk"
            if unsorted:
                yield node.lineno, f"{node.func.attr} without sorted"


def queries_without_order(tree: Nodes) -> Found:
    """A SELECT of several rows has ORDER BY, and no statement asks the database for the time."""
    pieces = {id(piece) for node in tree if isinstance(node, ast.JoinedStr) for piece in node.values}
    for node in tree:
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and id(node) not in pieces):
            text = _text(node)
            if re.match(r"\s*SELECT\b", text) and "ORDER BY" not in text and not ONE_ROW.search(text):
                yield node.lineno, f"SELECT without ORDER BY: {text.strip()[:60]}"
            if SQL_CLOCK.search(text):
                yield node.lineno, "SQL clock or randomness"


def _text(node: ast.JoinedStr | ast.Constant) -> str:
    """Returns the text of a literal, with `?` for what an f-string fills in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    return "".join(_text(piece) if isinstance(piece, ast.Constant) else "?" for piece in node.values)


RULES: tuple[Callable[[Nodes], Found], ...] = (
    calls_of_the_machine,
    walks_over_sets,
    folders_in_their_own_order,
    queries_without_order,
)


@functools.cache
def trees() -> dict[str, Nodes]:
    """Returns the nodes of the syntax trees of the kit and the services by path."""
    paths = [path for area in ("kit", "services") for path in python_files(ROOT, area)]
    return {str(source.path): source.nodes for path in paths if (source := Source.read(ROOT, path))}


@functools.cache
def broken(rule: Callable[[Nodes], Found]) -> tuple[tuple[str, int, str], ...]:
    """Returns the places that break a rule: path, line, what is there."""
    return tuple((path, line, what) for path, tree in trees().items() for line, what in rule(tree))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_seed_repeats_its_history(rule: Callable[[Nodes], Found]) -> None:
    """Nothing in the kit and the services depends on the machine or the process, but what has a reason."""
    found = [f"{path}:{line}: {what}" for path, line, what in broken(rule) if f"{path}: {what}" not in ALLOWED]
    expect_none(found, rule.__doc__)


def test_every_exception_is_needed() -> None:
    """An exception that no line needs any more goes."""
    needed = {f"{path}: {what}" for rule in RULES for path, _, what in broken(rule)}
    assert sorted(set(ALLOWED) - needed) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("import time\nx = time.time()", calls_of_the_machine),
        ("await asyncio.to_thread(f)", calls_of_the_machine),
        ("loop.run_in_executor(None, f)", calls_of_the_machine),
        ("random.shuffle(x)", calls_of_the_machine),
        ("for x in {1, 2}: pass", walks_over_sets),
        ("s: set[int] = g()\ny = [x for x in s]", walks_over_sets),
        ("for x in set(a) - b: pass", walks_over_sets),
        ("for p in folder.iterdir(): pass", folders_in_their_own_order),
        ("q = 'SELECT a FROM b'", queries_without_order),
        ("q = 'INSERT INTO b VALUES (CURRENT_TIMESTAMP)'", queries_without_order),
    ],
)
def test_a_rule_sees_what_it_forbids(text: str, rule: Callable[[Nodes], Found]) -> None:
    """Each rule finds its own kind."""
    assert list(rule(tuple(ast.walk(ast.parse(text)))))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("for x in sorted({1, 2}): pass", walks_over_sets),
        ("n = sum(x for x in {1, 2})", walks_over_sets),
        ("ok = 1 in {1, 2}", walks_over_sets),
        ("for p in sorted(folder.iterdir()): pass", folders_in_their_own_order),
        ("q = 'SELECT a FROM b ORDER BY a'", queries_without_order),
        ("q = 'SELECT value FROM meta WHERE key = ?'", queries_without_order),
        ("r = random.Random(7)", calls_of_the_machine),
    ],
)
def test_a_rule_lets_the_rest_pass(text: str, rule: Callable[[Nodes], Found]) -> None:
    """What is sorted, or asks for no order, is no finding."""
    assert not list(rule(tuple(ast.walk(ast.parse(text)))))
