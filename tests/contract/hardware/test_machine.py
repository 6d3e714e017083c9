"""The host, its memory, and the objects that callers make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_hardware.config import HardwareConfig
from lamina_kit.errors import InvalidArgument, LaminaError
from lamina_kit.rpc import status
from lamina_kit.rpc.inproc.call import MAX_ANSWER

RAM = 64 << 20


async def refusal(call: Any) -> LaminaError:
    """Returns the error with which a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return status.rpc_error(refused.value)


def in_file(extent: Any, size: int) -> bytes:
    """Returns the first bytes of an extent, from its file."""
    return Path(extent.path).read_bytes()[extent.offset : extent.offset + size]


@pytest.mark.inside
async def test_the_host_describes_itself(bench: Any, variant: tuple[str, str]) -> None:
    """GetHost gives sizes, engine, core path with its reason, and counters that grow."""
    host = await bench.hosts.GetHost(pb.GetHostRequest(name="hosts/h1"))
    assert (host.core_count, host.memory_bytes, host.engine) == (2, RAM, variant[0])
    assert (host.core_path, bool(host.core_path_reason)) == (variant[1], True)
    assert host.boot_id == bench.environment.layer.boot_id != ""
    process = await bench.process("count")
    await process.run()
    after = await bench.hosts.GetHost(pb.GetHostRequest())
    assert after.counters.instructions == host.counters.instructions + 3003
    assert [(entry.reason, entry.count) for entry in after.counters.exits_by_reason] == [(pb.EXIT_REASON_SYSCALL, 1)]
    assert after.counters.tlb_fills > 0
    found = await bench.cpu.GetContext(pb.GetContextRequest(handle=process.context.handle))
    assert found.counters.instructions == 3003


async def test_other_hosts_are_unknown(bench: Any) -> None:
    """The name of another host is NOT_FOUND, a malformed one INVALID_ARGUMENT."""
    error = await refusal(bench.hosts.GetHost(pb.GetHostRequest(name="hosts/h2")))
    assert (error.code, error.reason) == ("NOT_FOUND", "HOST_UNKNOWN")
    error = await refusal(bench.hosts.GetHost(pb.GetHostRequest(name="host")))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "NAME_MALFORMED")


async def test_time_goes_on(bench: Any) -> None:
    """GetTime never goes back."""
    first = await bench.hosts.GetTime(pb.GetTimeRequest())
    second = await bench.hosts.GetTime(pb.GetTimeRequest())
    assert 0 <= first.now_ns <= second.now_ns
    assert first.mode in ("real", "virtual")


@pytest.mark.inside
async def test_memory_is_read_and_written(bench: Any) -> None:
    """Bytes written are read back, and are those of the mapped file."""
    await bench.memory.WriteMemory(pb.WriteMemoryRequest(address=0x5000, data=b"hello"))
    answer = await bench.memory.ReadMemory(pb.ReadMemoryRequest(address=0x5000, size_bytes=5))
    assert answer.data == b"hello"
    extent = (await bench.memory.MapMemory(pb.MapMemoryRequest(address=0x5000, size_bytes=4096))).extents[0]
    assert in_file(extent, 5) == b"hello"


@pytest.mark.parametrize(("address", "size", "code"), [
    (RAM, 1, "OUT_OF_RANGE"), (RAM - 1, 2, "OUT_OF_RANGE"), (2**64 - 1, 2, "OUT_OF_RANGE"),
    (0, 0, "INVALID_ARGUMENT"), (0, -5, "INVALID_ARGUMENT"), (0, MAX_ANSWER + 1, "INVALID_ARGUMENT"),
])  # fmt: skip
async def test_memory_bounds(bench: Any, address: int, size: int, code: str) -> None:
    """Reads outside RAM, and of sizes below 1 or over what an answer may have, are refused."""
    error = await refusal(bench.memory.ReadMemory(pb.ReadMemoryRequest(address=address, size_bytes=size)))
    assert error.code == code


async def test_translate_wants_a_root_in_ram(bench: Any) -> None:
    """A root outside RAM is OUT_OF_RANGE."""
    error = await refusal(bench.cpu.Translate(pb.TranslateRequest(root=RAM, address=0)))
    assert (error.code, error.reason) == ("OUT_OF_RANGE", "ADDRESS_OUTSIDE_RAM")


async def test_run_groups_are_objects(bench: Any) -> None:
    """Run groups are created once for a request id, listed in pages, and deleted only when empty."""
    for name in ("b", "a", "c"):
        request = pb.CreateRunGroupRequest(run_group_id=name, run_group=pb.RunGroup(weight=5), request_id=f"r-{name}")
        made = await bench.cpu.CreateRunGroup(request)
        assert await bench.cpu.CreateRunGroup(request) == made
    assert (made.name, made.weight, made.period_ns) == ("hosts/h1/runGroups/c", 5, 100_000_000)
    first = await bench.cpu.ListRunGroups(pb.ListRunGroupsRequest(page_size=2))
    rest = await bench.cpu.ListRunGroups(pb.ListRunGroupsRequest(page_size=2, page_token=first.next_page_token))
    names = [entry.name[-1] for entry in (*first.run_groups, *rest.run_groups)]
    assert (names, rest.next_page_token) == (["a", "b", "c"], "")
    await bench.cpu.CreateContext(pb.CreateContextRequest(context=pb.Context(run_group=made.name)))
    error = await refusal(bench.cpu.DeleteRunGroup(pb.DeleteRunGroupRequest(name=made.name)))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "RUN_GROUP_IN_USE")
    await bench.cpu.DeleteRunGroup(pb.DeleteRunGroupRequest(name="hosts/h1/runGroups/a"))
    error = await refusal(bench.cpu.GetRunGroup(pb.GetRunGroupRequest(name="hosts/h1/runGroups/a")))
    assert (error.code, error.reason) == ("NOT_FOUND", "RUN_GROUP_UNKNOWN")


@pytest.mark.parametrize("fields", [
    {"weight": -1}, {"weight": 10001}, {"quota_ns": -1}, {"period_ns": 5}, {"cores": [2]}, {"cores": [-1]},
])  # fmt: skip
async def test_wrong_run_groups_are_refused(bench: Any, fields: dict[str, Any]) -> None:
    """Each field out of range is named in the violation."""
    request = pb.CreateRunGroupRequest(run_group_id="x", run_group=pb.RunGroup(**fields))
    error = await refusal(bench.cpu.CreateRunGroup(request))
    assert error.code == "INVALID_ARGUMENT"
    assert error.violations[0].field == f"run_group.{next(iter(fields))}"


async def test_names_are_taken_once(bench: Any) -> None:
    """A second group of a name, and one under an unknown parent, are refused."""
    request = pb.CreateRunGroupRequest(run_group_id="x")
    await bench.cpu.CreateRunGroup(request)
    assert (await refusal(bench.cpu.CreateRunGroup(request))).reason == "RUN_GROUP_EXISTS"
    parent = pb.RunGroup(parent="hosts/h1/runGroups/none")
    request = pb.CreateRunGroupRequest(run_group_id="y", run_group=parent)
    assert (await refusal(bench.cpu.CreateRunGroup(request))).reason == "RUN_GROUP_UNKNOWN"


async def test_contexts_are_objects(bench: Any) -> None:
    """Contexts are created once for a request id, and listed in the order of their handles."""
    request = pb.CreateContextRequest(context=pb.Context(label="one"), request_id="r1")
    made = await bench.cpu.CreateContext(request)
    assert await bench.cpu.CreateContext(request) == made
    gone = pb.CreateContextRequest(request_id="r2")
    handle = (await bench.cpu.CreateContext(gone)).handle
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=handle))
    again = await bench.cpu.CreateContext(gone)
    assert (again.handle.id, again.handle.generation) == (handle.id, handle.generation + 1)
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=again.handle))
    await bench.cpu.CreateContext(pb.CreateContextRequest())
    listed = await bench.cpu.ListContexts(pb.ListContextsRequest(page_size=1))
    assert [entry.label for entry in listed.contexts] == ["one"]
    rest = await bench.cpu.ListContexts(pb.ListContextsRequest(page_token=listed.next_page_token))
    assert [entry.handle.id for entry in rest.contexts] == [2]
    assert (await refusal(bench.cpu.ListContexts(pb.ListContextsRequest(page_token="?")))).code == "INVALID_ARGUMENT"


async def test_contexts_end_with_the_run_pages(bench: Any) -> None:
    """When every run page is taken the next context is RESOURCE_EXHAUSTED, until one is deleted."""
    made = [await bench.create() for _ in range(64)]
    error = await refusal(bench.cpu.CreateContext(pb.CreateContextRequest()))
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "RUN_PAGES_EXHAUSTED")
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=made[7].handle))
    again = await bench.create()
    assert (again.handle.id, again.handle.generation) == (8, 2)


@pytest.mark.parametrize("fields", [{"eptp": 5}, {"eptp": RAM}, {"label": "x" * 300}])
async def test_wrong_contexts_are_refused(bench: Any, fields: dict[str, Any]) -> None:
    """An EPT root that is not a page of RAM, and a label without end, are refused."""
    error = await refusal(bench.cpu.CreateContext(pb.CreateContextRequest(context=pb.Context(**fields))))
    assert error.code == "INVALID_ARGUMENT"


async def test_shootdowns_are_bounded(bench: Any) -> None:
    """A shootdown of nothing, of too many ranges, or of a negative range is refused."""
    assert (await refusal(bench.cpu.Shootdown(pb.ShootdownRequest()))).code == "INVALID_ARGUMENT"
    many = [pb.AddressRange(start=n << 12, size_bytes=4096) for n in range(4097)]
    assert (await refusal(bench.cpu.Shootdown(pb.ShootdownRequest(root=4096, ranges=many)))).code == "INVALID_ARGUMENT"
    wrong = pb.ShootdownRequest(root=4096, ranges=[pb.AddressRange(size_bytes=-4096)])
    assert (await refusal(bench.cpu.Shootdown(wrong))).code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("fields", [{"cores": 0}, {"cores": 1000}, {"memory_bytes": -1}, {"memory_bytes": 1 << 60}])
def test_impossible_machines_are_refused(fields: dict[str, int]) -> None:
    """A machine without cores, with too many, or with negative or huge RAM is refused, and the key is named."""
    with pytest.raises(InvalidArgument) as refused:
        HardwareConfig(**fields)  # type: ignore[arg-type]
    assert refused.value.violations[0].field == f"hardware.{next(iter(fields))}"


async def test_a_reboot_empties_ram(power: Callable[..., Any]) -> None:
    """A second start of the machine has another boot id, and RAM of zeros."""
    service, bench = await power(cores=1)
    first = bench.environment.layer.boot_id
    bench.bus.write(0x7000, b"before")
    await service.stop()
    await service.stop()
    service, bench = await power(cores=1)
    assert bench.bus.read(0x7000, 6) == bytes(6)
    assert bench.environment.layer.boot_id != ""
    assert first != ""
    await service.stop()
