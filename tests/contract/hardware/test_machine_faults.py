"""What breaks in a machine, physically: cores that stop, bits that flip."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from lamina.common.v1 import faults_pb2 as pb
from lamina.common.v1 import faults_pb2_grpc, layer_pb2
from lamina.hardware.v1 import hardware_pb2 as hw

from lamina_kit.bus.run_page import ExitReason
from lamina_kit.rpc import status

TEXT = 0x400000


@pytest.fixture
async def inject(bench: Any) -> Any:
    """Returns a function that injects a fault; what lasts is cleared after the test."""
    stub = faults_pb2_grpc.FaultsStub(bench.channel)
    made: list[str] = []

    async def call(kind: str, object: str, duration_ns: int = 0, **parameters: object) -> pb.Fault:
        given = [layer_pb2.Attribute(key=key, value=str(value)) for key, value in parameters.items()]
        fault = await stub.InjectFault(
            pb.InjectFaultRequest(fault=pb.Fault(kind=kind, object=object, parameters=given, duration_ns=duration_ns))
        )
        made.append(fault.name)
        return fault

    call.stub = stub  # type: ignore[attr-defined]
    yield call
    for name in made:
        if (await stub.GetFault(pb.GetFaultRequest(name=name))).state == pb.Fault.STATE_ACTIVE:
            await stub.ClearFault(pb.ClearFaultRequest(name=name))


async def cores(bench: Any) -> list[hw.Core]:
    """Returns the cores."""
    return list((await bench.cpu.ListCores(hw.ListCoresRequest())).cores)


async def reason_of(call: Any) -> str:
    """Returns the reason that a call fails with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.rpc_error(caught.value).reason


async def test_a_lost_core_takes_no_work(bench: Any, inject: Any) -> None:
    """It is shown as lost, runs go to the others, and once the fault is cleared it works again."""
    lost = (await cores(bench))[0].name
    fault = await inject("core-lost", lost)
    assert (await cores(bench))[0].state == hw.Core.STATE_LOST
    process = await bench.process("return_7")
    before = [core.counters.instructions for core in await cores(bench)]
    assert (await process.run()).reason == ExitReason.SYSCALL and process.page.rax == 7
    after = [core.counters.instructions for core in await cores(bench)]
    assert after[0] == before[0] and after[1] > before[1]
    await inject.stub.ClearFault(pb.ClearFaultRequest(name=fault.name))
    assert (await cores(bench))[0].state != hw.Core.STATE_LOST


async def test_what_runs_on_a_core_that_is_lost_goes_on(bench: Any, inject: Any) -> None:
    """The context is preempted, another core takes it with its registers, and it still obeys its holder."""
    process = await bench.process("spin")
    await bench.begin(process.context, sequence=1)

    async def core_at_work() -> str:
        end = bench.environment.clock.now_ns() + 30 * 10**9
        while not (found := [core.name for core in await cores(bench) if core.context]):
            assert bench.environment.clock.now_ns() < end, "the spinner does not run"
        return found[0]

    lost = await core_at_work()
    await inject("core-lost", lost)
    assert await core_at_work() != lost
    await bench.cpu.KickContext(hw.KickContextRequest(handle=process.context.handle))
    assert (await bench.stream.read()).reason == hw.EXIT_REASON_CANCELED


async def test_the_last_core_is_not_lost(bench: Any, inject: Any) -> None:
    """Without any core nothing would ever run again: it is refused, and a core that is lost is so once."""
    names = [core.name for core in await cores(bench)]
    for name in names[:-1]:
        await inject("core-lost", name)
    assert await reason_of(inject("core-lost", names[-1])) == "CORE_IS_LAST"
    assert await reason_of(inject("core-lost", names[0])) == "FAULT_ACTIVE"
    assert await reason_of(inject("core-lost", "hosts/h1/cores/9999")) == "CORE_UNKNOWN"
    assert await reason_of(inject("core-lost", "hosts/elsewhere/cores/0")) == "HOST_UNKNOWN"


async def test_a_bit_flips_in_ram(bench: Any, inject: Any) -> None:
    """The byte in RAM differs in that bit, the frame is dirty, and a second flip restores it."""
    host = (await bench.hosts.GetHost(hw.GetHostRequest())).name
    address = bench.frames() + 0x123
    bench.bus.write(address, b"\x0f")
    bench.bus.collect_dirty(address >> 12, 1)
    fault = await inject("bit-flip", host, address=address, bit=7)
    assert bench.bus.read(address, 1) == b"\x8f" and fault.state == pb.Fault.STATE_DONE
    assert bench.bus.collect_dirty(address >> 12, 1) == [address >> 12]
    await inject("bit-flip", host, address=hex(address), bit=7)
    assert bench.bus.read(address, 1) == b"\x0f"


async def test_a_flipped_bit_in_code_is_executed(bench: Any, inject: Any) -> None:
    """Code that was translated is translated anew: the program does what its bytes now say."""
    host = (await bench.hosts.GetHost(hw.GetHostRequest())).name
    process = await bench.process("return_7")
    await process.run()
    assert process.page.rax == 7
    await inject("bit-flip", host, address=process.text + 1, bit=3)  # mov eax, 7: the constant becomes 15
    process.at(TEXT)
    await process.run()
    assert process.page.rax == 15


async def test_a_flipped_bit_beyond_ram_is_refused(bench: Any, inject: Any) -> None:
    """An address outside RAM, or a bit that a byte does not have, is a violation of the parameter's range."""
    host = await bench.hosts.GetHost(hw.GetHostRequest())
    assert await reason_of(inject("bit-flip", host.name, address=host.memory_bytes, bit=0)) == "FAULT_INVALID"
    assert await reason_of(inject("bit-flip", host.name, address=0, bit=8)) == "FAULT_INVALID"
