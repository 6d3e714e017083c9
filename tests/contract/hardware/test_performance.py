"""What cores count, what it costs, and what can be seen of single accesses."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from lamina.common.v1 import access_pb2, handle_pb2
from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import performance_pb2 as perf
from lamina.hardware.v1 import performance_pb2_grpc as rpc

from lamina_kit.bus.run_page import ExitReason

TEXT, DATA, FREE = 0x400000, 0x600000, 0x70_0000
P, RW, US, A, D, PS = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7
READ, WRITE, EXECUTE = access_pb2.ACCESS_READ, access_pb2.ACCESS_WRITE, access_pb2.ACCESS_EXECUTE


@pytest.fixture
def counters(bench: Any) -> Any:
    """Returns the stub of the service."""
    return rpc.PerformanceStub(bench.channel)


async def of(counters: Any, **subject: Any) -> Any:
    """Returns counters of a context, a core, or the machine."""
    return await counters.GetPerformance(perf.GetPerformanceRequest(**subject))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Awaits a call that is refused; returns the code and what it says."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


@pytest.mark.inside  # counters of a machine that nobody used before
async def test_a_walk_is_counted_entry_by_entry(bench: Any, counters: Any) -> None:
    """A first touch costs a fill of four references, and sets A in each entry on the way and D in the leaf."""
    process = await bench.process("store_load")
    await process.run()
    first = await of(counters, handle=process.context.handle)
    assert first.instructions == 4
    assert first.walk_references == 4 * first.tlb_misses
    assert (first.ept_references, first.tlb_hits) == (0, 0)
    assert list(first.fills_by_size) == [first.tlb_misses, 0, 0]
    assert first.accessed_bits_set == 6  # root, PDPT, PD, two tables' worth of PD entries, and two leaves
    assert first.dirty_bits_set == 1
    assert [(e.reason, e.count) for e in first.exits] == [(ExitReason.SYSCALL, 1)]
    core = await of(counters, core=0)
    assert (core.instructions, core.tlb_misses) == (first.instructions, first.tlb_misses)


async def test_large_pages_are_counted_by_size(bench: Any, counters: Any) -> None:
    """A fill from a 2 MiB page takes three references, from a 1 GiB page two."""
    process = await bench.process()
    handle = process.context.handle
    for va, level, references, size in ((5 << 30, 2, 3, 1), (6 << 30, 3, 2, 2)):
        process.tables.map(va, 0, P | RW | US | PS, level=level)
        process.load("load")
        await process.run()
        before = await of(counters, handle=handle)
        process.load("load")
        process.page.rdi = va + 0x8000
        assert (await process.run()).reason == ExitReason.SYSCALL
        after = await of(counters, handle=handle)
        fills = after.fills_by_size[size] - before.fills_by_size[size]
        small = after.fills_by_size[0] - before.fills_by_size[0]
        assert fills == 1
        assert after.walk_references - before.walk_references == references + 4 * small


async def test_two_stages_take_up_to_24_references(bench: Any, counters: Any) -> None:
    """Each fill of a guest in small pages reads 4 entries of its own tables and 20 of the second stage."""
    guest = await bench.guest("kernel_cr3")
    guest.tables.map(FREE, guest.gpa_frames())
    guest.page.rdi, guest.page.rsi = FREE, guest.tables.root
    assert (await guest.run()).reason == ExitReason.HLT
    found = await of(counters, handle=guest.context.handle)
    assert found.tlb_misses > 0
    assert (found.walk_references, found.ept_references) == (4 * found.tlb_misses, 20 * found.tlb_misses)


async def test_faults_exceptions_and_interrupts_are_counted_by_vector(bench: Any, counters: Any) -> None:
    """An exception counts by its vector whether it exits or goes through the guest's IDT."""
    guest = await bench.guest("kernel_enter_user")
    guest.gate(0x80, "handler_hlt", 0x400, 3)
    guest.gate(14, "handler_hlt", 0x400)
    guest.user("user_fault")
    guest.page.rdi = FREE
    assert (await guest.run()).reason == ExitReason.HLT
    found = await of(counters, handle=guest.context.handle)
    assert [(entry.vector, entry.count) for entry in found.exceptions] == [(14, 1)]
    process = await bench.process("store")
    process.page.rdi = FREE
    await process.run()
    found = await of(counters, handle=process.context.handle)
    assert [(entry.vector, entry.count) for entry in found.exceptions] == [(14, 1)]
    assert [(e.reason, e.count) for e in found.exits] == [(ExitReason.PAGE_FAULT, 1)]


@pytest.mark.inside  # counters of a machine that nobody used before
async def test_the_holders_time_and_shootdowns(bench: Any, counters: Any) -> None:
    """The time from an exit to the next run is the exit's; a shootdown counts where it reached."""
    process = await bench.process("syscall_loop")
    await process.run()
    await process.run()
    await bench.cpu.Shootdown(pb.ShootdownRequest(root=process.tables.root))
    found = await of(counters, handle=process.context.handle)
    assert found.exits[0].count == 2
    assert found.exits[0].handling_time_ns >= 0
    assert (found.shootdowns, found.migrations, found.idle_time_ns) == (1, 0, 0)
    machine = await of(counters)
    assert machine.shootdowns == 1
    assert machine.instructions == found.instructions
    assert machine.idle_time_ns >= 0


@pytest.mark.inside  # counters of a machine that nobody used before
async def test_cycles_are_counts_times_costs(bench: Any, counters: Any) -> None:
    """Cycles follow from the counters and the table alone, and a change of the table leaves the past as it was."""
    process = await bench.process("count")
    await process.run()
    table = await counters.GetCostTable(perf.GetCostTableRequest())
    cost = {entry.event: entry.millicycles for entry in table.costs}
    assert [entry.event for entry in table.costs] == sorted(cost)
    assert all(entry.source for entry in table.costs)
    found = await of(counters, handle=process.context.handle)
    spent = found.instructions * cost["instruction"] + found.tlb_misses * cost["tlb.miss"]
    spent += found.walk_references * cost["walk.reference"]
    spent += (found.accessed_bits_set + found.dirty_bits_set) * cost["walk.set_bit"]
    assert found.guest_cycles == spent // 1000
    assert found.exits[0].cycles == cost["exit.syscall"] // 1000
    assert found.cycles == (spent + cost["exit.syscall"]) // 1000
    change = perf.CostTable(costs=[perf.Cost(event="instruction", millicycles=10**9, source="a test")])
    changed = await counters.UpdateCostTable(perf.UpdateCostTableRequest(table=change))
    assert next(entry for entry in changed.costs if entry.event == "instruction").source == "a test"
    assert (await of(counters, handle=process.context.handle)).cycles == found.cycles
    process.load("count")
    await process.run()
    again = await of(counters, handle=process.context.handle)
    assert again.cycles >= found.cycles + (again.instructions - found.instructions) * 10**6
    assert (await of(counters)).cycles == again.cycles


@pytest.mark.parametrize(
    "request_",
    [
        perf.UpdateCostTableRequest(),
        perf.UpdateCostTableRequest(table=perf.CostTable(costs=[perf.Cost(event="magic", source="x")])),
        perf.UpdateCostTableRequest(table=perf.CostTable(costs=[perf.Cost(event="tlb.miss", millicycles=1)])),
        perf.UpdateCostTableRequest(
            table=perf.CostTable(costs=[perf.Cost(event="tlb.miss", millicycles=10**12 + 1, source="x")])
        ),
        perf.UpdateCostTableRequest(
            table=perf.CostTable(
                costs=[perf.Cost(event="tlb.miss", source="x"), perf.Cost(event="tlb.miss", source="y")]
            )
        ),
        perf.UpdateCostTableRequest(table=perf.CostTable(frequency_hz=999_999)),
        perf.UpdateCostTableRequest(update_mask=FieldMask(paths=["frequency_hz"])),
        perf.UpdateCostTableRequest(
            table=perf.CostTable(frequency_hz=2_000_000_000), update_mask=FieldMask(paths=["name"])
        ),
    ],
)
async def test_costs_have_bounds(bench: Any, counters: Any, request_: Any) -> None:
    """Unknown events, costs and frequencies out of range, and costs without a source change nothing."""
    before = await counters.GetCostTable(perf.GetCostTableRequest())
    code, _ = await refusal(counters.UpdateCostTable(request_))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert await counters.GetCostTable(perf.GetCostTableRequest()) == before


async def test_the_frequency_alone(bench: Any, counters: Any) -> None:
    """A mask changes only what it names."""
    table = perf.CostTable(frequency_hz=3_000_000_000, costs=[perf.Cost(event="magic", source="ignored")])
    mask = FieldMask(paths=["frequency_hz"])
    found = await counters.UpdateCostTable(perf.UpdateCostTableRequest(table=table, update_mask=mask))
    assert found.frequency_hz == 3_000_000_000


async def test_who_is_unknown(bench: Any, counters: Any) -> None:
    """Stale handles and cores that are not there are refused."""
    stale = handle_pb2.Handle(id=9, generation=9)
    for call in (
        counters.GetPerformance(perf.GetPerformanceRequest(handle=stale)),
        counters.SetObservation(perf.SetObservationRequest(handle=stale, observed=True)),
    ):
        assert (await refusal(call))[0] is grpc.StatusCode.FAILED_PRECONDITION
    for core in (-1, 64):
        code, _ = await refusal(counters.GetPerformance(perf.GetPerformanceRequest(core=core)))
        assert code is grpc.StatusCode.OUT_OF_RANGE
        code, _ = await refusal(counters.ListTlbEntries(perf.ListTlbEntriesRequest(core=core)))
        assert code is grpc.StatusCode.OUT_OF_RANGE


async def test_a_tlb_lists_what_it_holds(bench: Any, counters: Any) -> None:
    """The TLB shows text and data by address with their frames and rights, and nothing after a shootdown."""
    process = await bench.process("store")
    process.page.rdi = DATA + 0x1000  # DATA itself has the slot of TEXT in a table of 256
    await process.run()
    request = perf.ListTlbEntriesRequest(core=0)
    if (await bench.hosts.GetHost(pb.GetHostRequest())).core_path == "portable":
        assert (await refusal(counters.ListTlbEntries(request)))[0] is grpc.StatusCode.UNIMPLEMENTED
        return
    entries = (await counters.ListTlbEntries(request)).entries
    assert [(entry.address, entry.physical_address) for entry in entries] == [
        (TEXT, process.text),
        (DATA + 0x1000, process.data + 0x1000),
    ]
    assert [(e.writable, e.executable, e.user) for e in entries] == [(False, True, True), (True, False, True)]
    assert {(e.root, e.eptp, e.pcid, e.page_size_bytes) for e in entries} == {(process.tables.root, 0, 0, 4096)}
    request.page_size = 1
    first = await counters.ListTlbEntries(request)
    request.page_token = first.next_page_token
    second = await counters.ListTlbEntries(request)
    assert [first.entries[0], second.entries[0]] == list(entries)
    assert second.next_page_token == ""
    request.page_token = "No such token"
    assert (await refusal(counters.ListTlbEntries(request)))[0] is grpc.StatusCode.INVALID_ARGUMENT
    await bench.cpu.Shootdown(pb.ShootdownRequest(root=process.tables.root))
    assert not (await counters.ListTlbEntries(perf.ListTlbEntriesRequest(core=0))).entries


# ── observation ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def observe(counters: Any, process: Any, observed: bool = True, **shape: int) -> Any:
    """Switches observation of a context."""
    wish = perf.SetObservationRequest(handle=process.context.handle, observed=observed, **shape)
    return await counters.SetObservation(wish)


async def test_observed_accesses_are_hits_or_misses(bench: Any, counters: Any) -> None:
    """Each access is a hit or a miss of the TLB that is counted; the same program retires the same instructions."""
    process = await bench.process("store_load")
    await process.run()
    before = await of(counters, handle=process.context.handle)
    shape = await observe(counters, process)
    assert (shape.observed, shape.tlb_entries, shape.tlb_ways) == (True, 1536, 12)
    process.load("store_load")
    record = await process.run()
    assert record.instructions_retired == 4
    after = await of(counters, handle=process.context.handle)
    assert after.tlb_misses - before.tlb_misses == 2  # text and data
    assert after.tlb_hits - before.tlb_hits == 4  # three more fetches, and the load behind the store
    assert after.walk_references - before.walk_references == 8


@pytest.mark.parametrize(("entries", "ways", "misses"), [(16, 16, 32 * 4), (64, 64, 33), (64, 4, 33)])
async def test_the_shape_of_the_tlb_decides(bench: Any, counters: Any, entries: int, ways: int, misses: int) -> None:
    """Four rounds over 32 pages of data miss each time in 16 entries, and once a page where all fit."""
    process = await bench.process()
    await observe(counters, process, tlb_entries=entries, tlb_ways=ways)
    # mov edx, 4; o: mov rdi, DATA; mov ecx, 32; i: mov al, [rdi]; add rdi, 4096; dec ecx; jnz i; dec edx; jnz o;
    # syscall
    code = "ba0400000048c7c700006000b9200000008a074881c700100000ffc975f3ffca75e30f05"
    bench.bus.write(process.text, bytes.fromhex(code))
    process.at(TEXT)
    record = await process.run()
    assert record.reason == ExitReason.SYSCALL
    found = await of(counters, handle=process.context.handle)
    fetches = record.instructions_retired
    assert found.tlb_hits + found.tlb_misses == fetches + 128
    assert misses <= found.tlb_misses <= misses + 1


async def test_accesses_are_shown_in_order(bench: Any, counters: Any) -> None:
    """Addresses, kinds and instruction numbers of every access come in the order of execution, until it ends."""
    process = await bench.process("store_load")
    await observe(counters, process)
    everything = await watch(counters, process, batch_size=4)
    stores = await watch(counters, process, kinds=[WRITE])
    for _ in range(2):
        process.load("store_load")
        await process.run()
    await observe(counters, process, observed=False)
    batches = [batch async for batch in everything]
    words = b"".join(batch.addresses for batch in batches)
    addresses = [int.from_bytes(words[n : n + 8], "little") for n in range(0, len(words), 8)]
    kinds = list(b"".join(batch.kinds for batch in batches))
    one = [(TEXT, EXECUTE), (TEXT + 7, EXECUTE), (DATA + 16, WRITE), (TEXT + 11, EXECUTE), (DATA + 16, READ),
           (TEXT + 15, EXECUTE)]  # fmt: skip
    seen = list(zip(addresses, kinds, strict=True))
    assert seen == one * 2
    assert [(len(batch.kinds), batch.first_instruction) for batch in batches] == [(4, 0), (2, 2), (4, 4), (2, 6)]
    assert not any(batch.lost for batch in batches)
    assert b"".join([batch.kinds async for batch in stores]) == bytes([WRITE] * 2)


async def watch(counters: Any, process: Any, **wish: Any) -> Any:
    """Opens a stream of accesses; returns it once nothing more is missed."""
    stream = counters.WatchAccesses(perf.WatchAccessesRequest(handle=process.context.handle, **wish))
    await stream.initial_metadata()
    return stream


async def gather(stream: Any) -> list[Any]:
    """Reads a stream to its end."""
    return [batch async for batch in stream]


async def test_a_deleted_context_ends_its_streams(bench: Any, counters: Any) -> None:
    """The stream of accesses ends with the context."""
    process = await bench.process("store_load")
    await observe(counters, process)
    stream = await watch(counters, process)
    await process.run()
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=process.context.handle))
    assert len(await asyncio.wait_for(gather(stream), 30)) == 1


async def test_what_observation_refuses(bench: Any, counters: Any) -> None:
    """Shapes out of range, and streams of who is not observed."""
    process = await bench.process()
    for entries, ways in ((15, 1), (65537, 1), (0, 65), (64, 48), (0, -1)):
        code, _ = await refusal(observe(counters, process, tlb_entries=entries, tlb_ways=ways))
        assert code is grpc.StatusCode.INVALID_ARGUMENT, (entries, ways)
    stream = counters.WatchAccesses(perf.WatchAccessesRequest(handle=process.context.handle))
    assert (await refusal(gather(stream)))[0] is grpc.StatusCode.FAILED_PRECONDITION
    await observe(counters, process)
    for wrong in ({"batch_size": 65537}, {"batch_size": -1}, {"kinds": [0]}, {"kinds": [7]}):
        stream = counters.WatchAccesses(perf.WatchAccessesRequest(handle=process.context.handle, **wrong))
        assert (await refusal(gather(stream)))[0] is grpc.StatusCode.INVALID_ARGUMENT, wrong


async def test_a_running_context_can_be_observed(bench: Any, counters: Any) -> None:
    """Observation switches on and off beneath a program that runs for ever, which never stops."""
    process = await bench.process("spin")
    await bench.begin(process.context, sequence=5)
    await observe(counters, process)
    stream = await watch(counters, process)
    batch = await asyncio.wait_for(stream.read(), 30)
    assert set(batch.kinds) == {EXECUTE}
    assert (await of(counters, handle=process.context.handle)).tlb_hits > 0
    await observe(counters, process, observed=False)
    await bench.cpu.KickContext(pb.KickContextRequest(handle=process.context.handle))
    ended = await bench.stream.read()
    assert (ended.sequence, ended.reason) == (5, ExitReason.CANCELED)
