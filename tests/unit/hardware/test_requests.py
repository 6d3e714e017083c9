"""What requests to the processor may say: what is within the bounds is taken, a step beyond is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from lamina.common.v1 import access_pb2
from lamina.hardware.v1 import dirty_log_pb2, performance_pb2
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.unit.hardware.requests import check_each, wrong

from lamina_hardware.contexts import updates
from lamina_hardware.convert import cpu, iommu, performance
from lamina_hardware.convert import dirty_logs as logs
from lamina_hardware.domain.contexts.run_groups import RunGroup, Share
from lamina_hardware.engines.model.engine import ContextWish, ModelEngine
from lamina_hardware.names import Names
from lamina_hardware.serving.pagination import page
from lamina_kit.errors import NotFound

RAM = 64 << 20
PAGE = 4096
NAMES = Names("h1")


def test_contexts() -> None:
    """Texts of 256 bytes, all 32 exceptions, and an EPT in RAM on a page are the most that a context may have."""
    check_each(
        pb.Context,
        lambda message: cpu.context_wish(message, NAMES, RAM, "me"),
        [{}, {"label": "x" * 256, "coherence_domain": "x" * 256, "eptp": RAM - PAGE},
         {"intercepts": pb.Intercepts(exceptions=(1 << 32) - 1)}],
        [("context.label", {"label": "x" * 257}), ("context.coherence_domain", {"coherence_domain": "é" * 129}),
         ("context.eptp", {"eptp": 8}), ("context.eptp", {"eptp": RAM})],
    )  # fmt: skip


def test_what_a_context_exits_for() -> None:
    """Without intercepts all exceptions and SYSCALL exit; with them, what they say."""
    default = cpu.context_wish(pb.Context(), NAMES, RAM, "me")
    assert (default.exceptions, default.cpuid, default.syscall, default.group) == ((1 << 32) - 1, False, True, "")
    wanted = pb.Context(intercepts=pb.Intercepts(exceptions=6, cpuid=True), run_group="hosts/h1/runGroups/g")
    chosen = cpu.context_wish(wanted, NAMES, RAM, "me")
    assert (chosen.exceptions, chosen.cpuid, chosen.syscall, chosen.group) == (6, True, False, "g")


def _changing(*paths: str) -> Callable[[pb.Context], list[str]]:
    """Returns what changes these fields of a new context."""

    def change(message: pb.Context) -> list[str]:
        engine = ModelEngine(1, 4)
        made = engine.create_context(ContextWish("", "", 0, 0, False, True, "", "me"))
        updates.update_context(engine, made, message, paths, NAMES, RAM)
        return [made.label, str(made.eptp), made.domain]

    return change


def test_changes_of_contexts() -> None:
    """A change has the bounds of a new context, and the fields that it does not name stay as they are."""
    check_each(
        pb.Context,
        _changing("label", "coherence_domain", "eptp"),
        [{"label": "x" * 256, "coherence_domain": "x" * 256, "eptp": RAM - PAGE}],
        [("context.label", {"label": "x" * 257}), ("context.coherence_domain", {"coherence_domain": "x" * 257}),
         ("context.eptp", {"eptp": 8}), ("context.eptp", {"eptp": RAM})],
    )  # fmt: skip
    assert wrong(lambda: _changing()(pb.Context())) == ["update_mask"]
    assert wrong(lambda: _changing("state")(pb.Context())) == ["update_mask"]
    message = pb.Context(label="new", eptp=PAGE)
    assert _changing("label")(message)[:2] == ["new", "0"]
    assert _changing("eptp")(message)[:2] == ["", "4096"]


GROUPS_GOOD: list[dict[str, Any]] = [
    {}, {"weight": 1}, {"weight": 10_000}, {"period_ns": 1_000_000}, {"period_ns": 1_000_000_000}, {"cores": [0, 1]},
    {"quota_ns": 200_000_000}, {"quota_ns": 2_000_000, "period_ns": 1_000_000},
]  # fmt: skip
GROUPS_BAD: list[tuple[str, Any]] = [
    ("run_group.weight", {"weight": -1}), ("run_group.weight", {"weight": 10_001}),
    ("run_group.period_ns", {"period_ns": 999_999}), ("run_group.period_ns", {"period_ns": 1_000_000_001}),
    ("run_group.quota_ns", {"quota_ns": -1}), ("run_group.quota_ns", {"quota_ns": 200_000_001}),
    ("run_group.quota_ns", {"quota_ns": 2_000_001, "period_ns": 1_000_000}),
    ("run_group.cores", {"cores": [2]}), ("run_group.cores", {"cores": [0, -1]}),
]  # fmt: skip


def test_run_groups() -> None:
    """Weights, periods, quotas of at most all cores, and cores that are there; the same in a change."""

    def create(message: pb.RunGroup) -> RunGroup:
        request = pb.CreateRunGroupRequest(run_group_id="g", run_group=message)
        return cpu.run_group_wish(request, NAMES, 2, "me", 7)

    old = RunGroup("g", "", Share(), quota_ns=5, period_ns=1_000_000)
    check_each(pb.RunGroup, create, GROUPS_GOOD, GROUPS_BAD)
    check_each(pb.RunGroup, lambda message: updates.group_change(message, (), old, 2), GROUPS_GOOD, GROUPS_BAD)
    many = pb.RunGroup(cores=[0] * 4097)
    assert wrong(lambda: updates.group_change(many, ("cores",), old, 2)) == ["run_group.cores"]
    assert wrong(lambda: updates.group_change(pb.RunGroup(), ("name",), old, 2)) == ["update_mask"]
    bad = pb.CreateRunGroupRequest(run_group_id="No!")
    assert wrong(lambda: cpu.run_group_wish(bad, NAMES, 2, "me", 7)) == ["run_group_id"]
    made = create(pb.RunGroup(cores=[1], quota_ns=9))
    assert (made.share.weight, made.quota_ns, made.period_ns, set(made.cores)) == (100, 9, 100_000_000, {1})
    assert (made.owner, made.window_start) == ("me", 7)


def test_a_change_of_a_run_group_leaves_the_rest() -> None:
    """Only what the mask names changes; a quota is checked against the period that then holds."""
    old = RunGroup("g", "", Share(), quota_ns=2_000_001, period_ns=2_000_000)
    message = pb.RunGroup(weight=5, quota_ns=3, period_ns=1_000_000, cores=[1])
    for path, value in (("weight", 5), ("quota_ns", 3), ("cores", frozenset({1}))):
        change = updates.group_change(message, (path,), old, 2)
        assert {name: getattr(change, name) for name in updates.GROUP_FIELDS if getattr(change, name) is not None} == {
            path: value
        }
    assert wrong(lambda: updates.group_change(message, ("period_ns",), old, 2)) == ["run_group.quota_ns"]
    assert updates.group_change(message, ("period_ns",), replace(old, quota_ns=2_000_000), 2).period_ns == 1_000_000


def test_accesses() -> None:
    """Reads, writes and executions; nothing said is a read. Devices execute nothing."""
    assert [cpu.access(value).name for value in range(4)] == ["READ", "READ", "WRITE", "EXECUTE"]
    assert wrong(lambda: cpu.access(4)) == ["access"]
    assert [iommu.is_write(value) for value in range(3)] == [False, False, True]
    assert wrong(lambda: iommu.is_write(access_pb2.ACCESS_EXECUTE)) == ["access"]


def test_pages_of_a_list() -> None:
    """A page has at most 1000 entries, 100 when nothing is said; the token of the last one leads to no further."""
    items = [f"{n:04}" for n in range(1001)]

    def pages(size: int, token: str = "") -> tuple[list[str], str]:
        found, after = page(items, lambda item: item, size, token)
        return list(found), after

    assert pages(1000) == (items[:1000], "0999")
    assert pages(0) == (items[:100], "0099")
    assert pages(1000, "0000") == (items[1:], "")
    assert pages(999, "0000") == (items[1:1000], "0999")
    assert pages(2, "0007x") == (items[8:10], "0009")
    for size, token, field in ((-1, "", "page_size"), (1001, "", "page_size"), (1, "Not!", "PAGE_TOKEN_INVALID")):
        assert wrong(lambda size=size, token=token: pages(size, token)) == [field]  # type: ignore[misc]


def test_names_of_another_host() -> None:
    """What is of another host is not found; empty means this host, or the root of a tree."""
    for find, kind in (
        (NAMES.run_group, "runGroups"), (NAMES.device, "devices"), (NAMES.disk, "disks"), (NAMES.nic, "nics"),
        (NAMES.wire, "wires"), (NAMES.io_group, "ioGroups"), (NAMES.dma_domain, "dmaDomains"),
    ):  # fmt: skip
        assert find(f"hosts/h1/{kind}/x") == "x"
        with pytest.raises(NotFound):
            find(f"hosts/h2/{kind}/x")
    assert (NAMES.run_group(""), NAMES.io_group("")) == ("", "")
    assert (NAMES.format_run_group(""), NAMES.format_io_group(""), NAMES.format_dma_domain(0)) == ("", "", "")
    assert NAMES.format_dma_domain(3) == "hosts/h1/dmaDomains/d-3"
    NAMES.check_host("")
    NAMES.check_host("hosts/h1")
    with pytest.raises(NotFound):
        NAMES.check_host("hosts/h2")


def test_dirty_logs() -> None:
    """1 to 4096 ranges of whole pages that touch but do not overlap, within RAM and 1 TiB together."""
    entry = dirty_log_pb2.StartDirtyLogRequest.PhysicalRange

    def take(*pieces: tuple[int, int], ram: int = RAM) -> list[str]:
        given = [entry(address=start, size_bytes=size) for start, size in pieces]
        return wrong(lambda: logs.ranges(given, ram))

    assert take((0, RAM)) == take((PAGE, PAGE), (0, PAGE)) == take((0, 1 << 40), ram=1 << 40) == []
    assert take(*((n * PAGE, PAGE) for n in range(4096))) == []
    assert take() == take(*((n * PAGE, PAGE) for n in range(4097))) == ["ranges"]
    assert take((8, PAGE)) == ["ranges.address"]
    assert take((0, PAGE + 8)) == take((0, 0)) == take((0, (1 << 40) + PAGE), ram=1 << 60) == ["ranges.size_bytes"]
    assert take((0, 1 << 40), (1 << 40, PAGE), ram=1 << 60) == ["ranges"]
    assert take((0, 2 * PAGE), (PAGE, PAGE)) == ["ranges"]
    assert take((0, RAM + PAGE)) == take((RAM, PAGE)) == ["ADDRESS_OUTSIDE_RAM"]
    given = [entry(address=8 * PAGE, size_bytes=PAGE), entry(address=PAGE, size_bytes=2 * PAGE)]
    assert logs.ranges(given, RAM) == [(1, 2), (8, 1)]


def test_costs() -> None:
    """Costs name each event once with a source; a change changes something."""
    table, cost = performance_pb2.CostTable, performance_pb2.Cost

    def take(found: Any, *paths: str) -> list[str]:
        request = performance_pb2.UpdateCostTableRequest(table=found)
        request.update_mask.paths.extend(paths)
        return wrong(lambda: performance.cost_changes(request))

    one = cost(event="x", millicycles=0, source="s")
    low, high = performance._FREQUENCIES
    assert take(table(costs=[one])) == take(table(frequency_hz=low)) == take(table(frequency_hz=high)) == []
    assert take(table()) == ["table"]
    assert take(table(), "name") == ["update_mask"]
    assert take(table(frequency_hz=low - 1)) == take(table(frequency_hz=high + 1)) == ["table.frequency_hz"]
    assert take(table(costs=[one, one])) == ["table.costs"]
    assert take(table(costs=[cost(event="x", source="s", millicycles=-1)])) == ["table.costs.millicycles"]
    assert take(table(costs=[cost(event="x")])) == ["table.costs.source"]
    request = performance_pb2.UpdateCostTableRequest(table=table(costs=[one], frequency_hz=low))
    request.update_mask.paths.append("costs")
    costs, frequency = performance.cost_changes(request)
    assert (list(costs), frequency) == (["x"], None)
