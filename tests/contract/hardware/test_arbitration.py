"""Who runs when: shares, quotas, core sets, coherence domains, and how a run is stopped from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from lamina.common.v1 import handle_pb2, layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import hardware_pb2 as pb

from lamina_kit.bus.run_page import ExitReason

LONG_RUN = "in virtual time a run ends after its quantum: there is nothing to share, throttle or stop in the middle"


async def group(bench: Any, name: str, **fields: Any) -> str:
    """Makes a run group; returns its resource name."""
    request = pb.CreateRunGroupRequest(run_group_id=name, run_group=pb.RunGroup(**fields))
    return str((await bench.cpu.CreateRunGroup(request)).name)


async def state_of(bench: Any, process: Any) -> Any:
    """Returns a context's state."""
    return (await bench.cpu.GetContext(pb.GetContextRequest(handle=process.context.handle))).state


async def kick(bench: Any, process: Any) -> bool:
    """Kicks a context; returns whether it ran or waited."""
    return bool((await bench.cpu.KickContext(pb.KickContextRequest(handle=process.context.handle))).was_active)


async def on_a_core(bench: Any, process: Any) -> None:
    """Waits until the machine runs a context: what was written to a stream may not be read at the other end yet."""
    for _ in range(10_000):
        if await state_of(bench, process) == pb.Context.STATE_RUNNING:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"{process.context.handle} was never on a core")


async def turns(count: int) -> None:
    """Lets the event loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_two_cores_run_two_contexts(bench: Any, eventually: Callable[..., Any]) -> None:
    """Independent contexts run at the same time, a third waits."""
    spinners = [await bench.process("spin") for _ in range(3)]
    for number, process in enumerate(spinners):
        await bench.begin(process.context, sequence=number)
    seen: set[int] = set()

    async def count() -> int:
        cores = (await bench.cpu.ListCores(pb.ListCoresRequest())).cores
        return sum(core.state == pb.Core.STATE_RUNNING for core in cores)

    for process in spinners:
        while await state_of(bench, process) == pb.Context.STATE_IDLE:  # until the machine has read its run
            pass
    for _ in range(50):
        seen.add(await count())
        await asyncio.sleep(0)
    assert max(seen) == 2
    for process in spinners:
        assert await kick(bench, process)
    assert {(await bench.stream.read()).reason for _ in spinners} == {pb.EXIT_REASON_CANCELED}


async def test_one_domain_never_overlaps(power: Callable[..., Any], eventually: Callable[..., Any]) -> None:
    """Of contexts that share a coherence domain one runs at a time, however many cores are idle."""
    service, bench = await power(cores=4, slice_instructions=20_000)
    same = [await bench.process("spin", coherence_domain="vm-1") for _ in range(3)]
    for number, process in enumerate(same):
        await bench.begin(process.context, sequence=number)
    together: set[int] = set()
    contexts = service.machine.engine.contexts.entries()

    def all_have_run() -> bool:
        together.add(sum(run is not None for run in service.machine.engine.arbiter.running))
        return all(context.counts.instructions > 0 for context in contexts)

    await eventually(all_have_run, "every context of the domain has run")
    for _ in range(100):
        all_have_run()
        await asyncio.sleep(0)
    assert together <= {0, 1}
    for process in same:
        await kick(bench, process)
    done = [await bench.stream.read() for _ in same]
    assert all(response.instructions > 0 for response in done)
    await service.stop()


@pytest.mark.real_time(LONG_RUN)
async def test_shares_follow_weights(power: Callable[..., Any]) -> None:
    """Two groups that always want one core get instructions in the ratio of their weights."""
    service, bench = await power(cores=1, threads=False, slice_instructions=10_000, inline_instructions=10_000)
    heavy = await bench.process("spin", run_group=await group(bench, "heavy", weight=300))
    light_group = await group(bench, "light", weight=100)
    light = [await bench.process("spin", run_group=light_group) for _ in range(2)]
    for process in (heavy, *light):
        await bench.begin(process.context)
    await turns(400)
    for process in (heavy, *light):
        await kick(bench, process)
    done = {response.handle.id: response for response in [await bench.stream.read() for _ in range(3)]}
    ratio = done[heavy.context.handle.id].instructions / sum(done[p.context.handle.id].instructions for p in light)
    assert 2.7 < ratio < 3.3
    found = await bench.cpu.GetRunGroup(pb.GetRunGroupRequest(name="hosts/h1/runGroups/light"))
    assert found.used_ns == sum(done[p.context.handle.id].run_time_ns for p in light)
    await service.stop()


@pytest.mark.real_time(LONG_RUN)
async def test_shares_are_a_tree(power: Callable[..., Any]) -> None:
    """A group's children share what the group gets, not what the host has."""
    service, bench = await power(cores=1, threads=False, slice_instructions=10_000, inline_instructions=10_000)
    pods = await group(bench, "pods")
    inner = [await bench.process("spin", run_group=await group(bench, f"pod-{n}", parent=pods)) for n in range(2)]
    machine = await bench.process("spin", run_group=await group(bench, "machine"))
    for process in (*inner, machine):
        await bench.begin(process.context)
    await turns(400)
    for process in (*inner, machine):
        await kick(bench, process)
    done = {response.handle.id: response.instructions for response in [await bench.stream.read() for _ in range(3)]}
    whole = done[machine.context.handle.id]
    for process in inner:
        assert 0.4 < done[process.context.handle.id] / whole < 0.6
    await service.stop()


@pytest.mark.real_time(LONG_RUN)
async def test_a_quota_throttles(power: Callable[..., Any], manual_clock: Any) -> None:
    """A group that used its quota waits for the next period, then goes on; the time is accounted for."""
    service, bench = await power(manual_clock, cores=1, threads=False, slice_instructions=1_000_000)
    name = await group(bench, "capped", quota_ns=10_000_000, period_ns=100_000_000)
    process = await bench.process("spin", run_group=name)
    await bench.begin(process.context)
    await turns(600)
    used = (await bench.cpu.GetRunGroup(pb.GetRunGroupRequest(name=name))).used_ns
    assert 10_000_000 <= used < 11_100_000
    assert await state_of(bench, process) == pb.Context.STATE_READY
    await manual_clock.advance(50_000_000)
    await turns(600)
    assert (await bench.cpu.GetRunGroup(pb.GetRunGroupRequest(name=name))).used_ns == used
    await manual_clock.advance(50_000_000)
    await turns(600)
    after = await bench.cpu.GetRunGroup(pb.GetRunGroupRequest(name=name))
    assert 20_000_000 <= after.used_ns < 21_100_000
    assert after.throttled_ns == 100_000_000
    decided = bench.environment.layer.events.decisions(name)
    assert decided[0].rule == "quota used up in this period"
    await kick(bench, process)
    assert (await bench.stream.read()).reason == pb.EXIT_REASON_CANCELED
    await service.stop()


async def test_core_sets_hold(bench: Any) -> None:
    """Contexts of a group with a core set run there only."""
    process = await bench.process("syscall_loop", run_group=await group(bench, "pinned", cores=[1]))
    for _ in range(5):
        await process.run()
        assert process.response.core == 1


@pytest.mark.real_time(LONG_RUN)
async def test_a_kick_stops_a_run(bench: Any, eventually: Callable[..., Any]) -> None:
    """A context that runs for ever is stopped by a kick, with its registers in the page."""
    process = await bench.process("spin")
    await bench.begin(process.context, sequence=9)
    await on_a_core(bench, process)
    assert await kick(bench, process)
    response = await bench.stream.read()
    assert (response.reason, response.sequence) == (pb.EXIT_REASON_CANCELED, 9)
    assert process.page.load_exit().reason == ExitReason.CANCELED
    assert response.instructions >= process.page.rax >= response.instructions // 5
    assert await state_of(bench, process) == pb.Context.STATE_IDLE


async def test_a_kick_of_an_idle_context_is_remembered(bench: Any) -> None:
    """A context kicked while idle exits at its next run, once."""
    process = await bench.process("syscall_loop")
    assert not await kick(bench, process)
    assert (await bench.run(process.context)).reason == pb.EXIT_REASON_CANCELED
    assert (await process.run()).reason == ExitReason.SYSCALL


async def test_a_shootdown_reaches_a_running_core(bench: Any) -> None:
    """A core that runs on its thread drops its translations and goes on; the caller of Run sees nothing of it."""
    await (await bench.process("syscall_loop")).run()  # from here on the first slice runs where a run begins
    process = await bench.process("spin")
    await bench.begin(process.context, sequence=3)
    await on_a_core(bench, process)
    place = process.tables.entry(0x400000)
    bench.bus.cas64(place, bench.bus.load64(place), 0)
    assert (await bench.cpu.Shootdown(pb.ShootdownRequest(root=process.tables.root))).cores == 1
    response = await bench.stream.read()
    assert (response.reason, response.sequence) == (pb.EXIT_REASON_PAGE_FAULT, 3)


async def test_stale_handles_are_refused(bench: Any) -> None:
    """A deleted context's handle is refused everywhere, also when its slot serves another context."""
    process = await bench.process()
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=process.context.handle))
    other = await bench.process()
    assert other.context.handle.id == process.context.handle.id
    response = await bench.run(process.context)
    assert (response.reason, response.detail) == (pb.EXIT_REASON_REFUSED, "HANDLE_STALE")
    for call, request in (
        (bench.cpu.GetContext, pb.GetContextRequest(handle=process.context.handle)),
        (bench.cpu.DeleteContext, pb.DeleteContextRequest(handle=process.context.handle)),
        (bench.cpu.KickContext, pb.KickContextRequest(handle=handle_pb2.Handle(id=99, generation=1))),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(request)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_context_runs_once_at_a_time(bench: Any) -> None:
    """A second run of a context that runs is refused; the first goes on."""
    process = await bench.process("spin")
    await bench.begin(process.context, sequence=1)
    await bench.begin(process.context, sequence=2)
    response = await bench.stream.read()
    assert (response.sequence, response.reason, response.detail) == (2, pb.EXIT_REASON_REFUSED, "CONTEXT_BUSY")
    await kick(bench, process)
    assert (await bench.stream.read()).sequence == 1


async def test_a_slow_reader_holds_nobody_up(bench: Any) -> None:
    """Requests are taken while nobody reads the responses, which then come in their order, none missing."""
    process = await bench.process("syscall_loop")
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=process.context.handle))
    for sequence in range(1, 301):
        await bench.begin(process.context, sequence=sequence)
    await bench.stream.done_writing()
    assert [response.sequence async for response in _read(bench.stream)] == list(range(1, 301))
    bench.stream = bench.cpu.Run()


async def _read(stream: Any) -> AsyncIterator[pb.RunResponse]:
    while isinstance(response := await stream.read(), pb.RunResponse):
        yield response


async def test_deleting_stops_first(bench: Any) -> None:
    """Deleting a running context ends its run with CANCELED."""
    process = await bench.process("spin")
    await bench.begin(process.context)
    await on_a_core(bench, process)
    await bench.cpu.DeleteContext(pb.DeleteContextRequest(handle=process.context.handle))
    assert (await bench.stream.read()).reason == pb.EXIT_REASON_CANCELED


@pytest.mark.real_time(LONG_RUN)
async def test_closing_the_stream_stops_its_runs(bench: Any, eventually: Callable[..., Any]) -> None:
    """What runs on a stream stops when the stream is cancelled."""
    process = await bench.process("spin")
    await bench.begin(process.context)
    await on_a_core(bench, process)
    bench.stream.cancel()

    def idle() -> bool:
        return int(process.page.exit_reason) == ExitReason.CANCELED

    await eventually(idle, "the context stops")
    bench.stream = bench.cpu.Run()
    while (again := await bench.run(process.context, 10)).reason == ExitReason.REFUSED:
        assert again.detail == "CONTEXT_BUSY", "the page tells it a moment before the machine has the core back"
    assert again.reason == ExitReason.BUDGET


async def test_a_negative_budget_ends_the_stream(bench: Any) -> None:
    """A negative budget is INVALID_ARGUMENT for the whole stream."""
    process = await bench.process()
    await bench.begin(process.context, -1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await bench.stream.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_broken_session_stops_its_contexts(bench: Any, eventually: Callable[..., Any]) -> None:
    """When an owner's session stream breaks, its contexts stop at once, and nobody else's."""
    channel = bench.channel
    session = layer_pb2_grpc.LayerStub(channel).OpenSession(layer_pb2.OpenSessionRequest(owner="h1/runtime", epoch=1))
    await session.read()
    owned, free = await bench.process("spin"), await bench.process("spin")
    request = pb.CreateContextRequest(context=pb.Context(label="owned"))
    owned.context = await bench.cpu.CreateContext(request, metadata=(("lamina-session", "h1/runtime/1"),))
    page = bench.bus.run_page(owned.context.run_page)
    page[:] = bytes(owned.page.view)
    await bench.begin(owned.context, sequence=1)
    await bench.begin(free.context, sequence=2)
    await on_a_core(bench, owned)
    await on_a_core(bench, free)
    session.cancel()
    response = await bench.stream.read()
    assert (response.sequence, response.reason) == (1, pb.EXIT_REASON_CANCELED)
    await on_a_core(bench, free)
    await kick(bench, free)
    assert (await bench.stream.read()).sequence == 2
