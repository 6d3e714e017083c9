"""`lamina hardware registers` and `controls`: what stands in their tables."""

from __future__ import annotations

import argparse
import json
from typing import Any, cast

import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import exit_controls_pb2, hardware_pb2, registers_pb2

from lamina_cli.client.client import Client
from lamina_cli.commands.hardware.registers import controls, registers
from lamina_kit.errors import NotFound

REGISTERS = registers_pb2.Registers(
    general=list(range(16)),
    flow=registers_pb2.FlowState(rip=0x400010, rflags=0x202, cpl=3, activity=2, nmi_blocked=True),  # type: ignore[arg-type]
    segments=[registers_pb2.Segment(selector=n * 8, limit=0xFFFF, attributes=0xA09B) for n in range(8)],
    msrs=[registers_pb2.Msr(number=0xC000_0082, value=0x1234)],
    event=registers_pb2.PendingEvent(vector=14, kind=3, error_code=2),  # type: ignore[arg-type]
    debug=registers_pb2.DebugRegisters(addresses=[1, 2, 3, 4], dr6=0xFFFF_0FF0, dr7=0x400),
)
CONTROLS = exit_controls_pb2.ExitControls(
    exceptions=1 << 14 | 1 << 6,
    instructions=[exit_controls_pb2.TRAPPED_INSTRUCTION_HLT],
    ports=exit_controls_pb2.PortControls(ranges=[exit_controls_pb2.PortRange(first=0x3F8, count=8)]),
    control_registers=exit_controls_pb2.ControlRegisterControls(cr0_mask=8, cr8_writes=True),
    preemption_timer_ns=5000,
    posted_writes=[exit_controls_pb2.PostedWrite(slot=3, port=0x50, size_bytes=1, value=7)],
)


class Stubs:
    """A host with two contexts; it answers for the one asked for."""

    def stub(self, layer: str, kind: Any) -> Any:
        """Returns itself for every service."""
        return self

    async def ListContexts(self, request: Any) -> Any:
        """Returns the contexts."""
        handles = [handle_pb2.Handle(id=n, generation=1) for n in (1, 2)]
        contexts = [hardware_pb2.Context(name=f"hosts/h1/contexts/c-{h.id}", handle=h) for h in handles]
        return hardware_pb2.ListContextsResponse(contexts=contexts)

    async def ReadRegisters(self, request: Any) -> Any:
        """Returns registers with the context's number as time."""
        found = registers_pb2.Registers(tsc=request.handle.id)
        found.MergeFrom(REGISTERS)
        return registers_pb2.ReadRegistersResponse(registers=found)

    async def GetExitControls(self, request: Any) -> Any:
        """Returns controls."""
        assert request.handle.id == 2
        return CONTROLS


def asked(context: str, form: str = "table") -> argparse.Namespace:
    """Returns arguments."""
    return argparse.Namespace(context=context, output=form)


async def test_registers_are_listed_in_the_order_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    """General registers first; addresses in hexadecimal; the event that waits last."""
    await registers(cast(Client, Stubs()), asked("c-2"))
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    names = [line[0] for line in lines]
    assert lines[0] == ["REGISTER", "VALUE"] and names[1:18] == [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)), "rip"
    ]  # fmt: skip
    found = {name: text.strip() for name, text in lines}
    assert found["rcx"] == "0x0000000000000001" and found["tsc"] == "2"
    assert found["activity"] == "halted, NMIs blocked"
    assert found["ss"] == "0x0010 base 0x0 limit 0xffff attributes 0xa09b"
    assert found["msr"].split() == ["0xc0000082", "0x1234"]
    assert lines[-1][0] == "event" and found["event"] == "exception 0xe error code 0x2"


async def test_controls_that_are_off_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """One row for each control that is on."""
    await controls(cast(Client, Stubs()), asked("hosts/h1/contexts/c-2"))
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        "CONTROL VALUE",
        "exceptions 6 14",
        "instructions hlt",
        "ports 0x3f8-0x3ff",
        "CR0 mask 0x8 shadow 0x0",
        "CR8 writes",
        "preemption timer 5,000 ns",
        "posted write 3 port 0x50 1 bytes value 0x7",
    ]


async def test_both_are_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The messages of the contract."""
    await registers(cast(Client, Stubs()), asked("c-1", "json"))
    assert json.loads(capsys.readouterr().out)["registers"]["tsc"] == "1"
    await controls(cast(Client, Stubs()), asked("c-2", "json"))
    assert json.loads(capsys.readouterr().out)["instructions"] == ["TRAPPED_INSTRUCTION_HLT"]


async def test_a_context_that_is_not_there_is_an_error() -> None:
    """The error names it."""
    with pytest.raises(NotFound, match="c-9"):
        await registers(cast(Client, Stubs()), asked("c-9"))
