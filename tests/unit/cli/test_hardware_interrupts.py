"""`lamina hardware apics` and `routes`: what stands in their tables."""

from __future__ import annotations

import argparse
from typing import Any, cast

import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import hardware_pb2, interrupts_pb2

from lamina_cli.client.client import Client
from lamina_cli.commands.hardware.interrupts import apics, routes
from lamina_kit.errors import NotFound


class Stubs:
    """A host with two contexts, of which the second has an APIC, and a device with two routes."""

    def stub(self, layer: str, kind: Any) -> Any:
        """Returns itself for every service."""
        return self

    async def ListContexts(self, request: Any) -> Any:
        """Returns the contexts."""
        contexts = [
            hardware_pb2.Context(name=f"hosts/h1/contexts/c-{n}", handle=handle_pb2.Handle(id=n, generation=1))
            for n in (1, 2)
        ]
        return hardware_pb2.ListContextsResponse(contexts=contexts)

    async def GetApic(self, request: Any) -> Any:
        """Returns the APIC of the second."""
        if request.handle.id == 1:
            raise NotFound("none", reason="APIC_ABSENT", next_step="-")
        state = interrupts_pb2.Apic.State(
            requested=[0x30, 0x41], delivered=1234, timer_vector=0xEF, timer_deadline_ns=5
        )
        return interrupts_pb2.Apic(
            handle=request.handle, mode=interrupts_pb2.Apic.MODE_X2APIC, apic_id=3, interrupt_domain="vm", state=state
        )

    async def ListInterruptRoutes(self, request: Any) -> Any:
        """Returns the routes."""
        signal = interrupts_pb2.ContextSignal(handle=handle_pb2.Handle(id=4, generation=2), vector=0x51)
        message = interrupts_pb2.MessageSignal(address=0xFEE01000, data=0x61)
        routed = interrupts_pb2.RoutedMessage(interrupt_domain="vm", message=message)
        found = [
            interrupts_pb2.InterruptRoute(device_vector=0, context=signal, interrupts=7),
            interrupts_pb2.InterruptRoute(device_vector=3, message=routed),
        ]
        return interrupts_pb2.ListInterruptRoutesResponse(routes=found)


async def test_contexts_without_an_apic_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """One row for each APIC, vectors in hexadecimal."""
    await apics(cast(Client, Stubs()), argparse.Namespace(output="table"))
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["CONTEXT", "MODE", "ID", "DOMAIN"]
    assert row.split() == ["c-2", "x2apic", "3", "vm", "0x30", "0x41", "-", "1,234", "0xef", "0", "0"]


async def test_routes_name_their_target(capsys: pytest.CaptureFixture[str]) -> None:
    """A context by its handle, a message by domain, address and data."""
    await routes(cast(Client, Stubs()), argparse.Namespace(output="table", device="hosts/h1/devices/dma0"))
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["0", "context", "4.2", "vector", "0x51", "7"]
    assert second.split() == ["3", "domain", "vm", "address", "0xfee01000", "data", "0x61", "0"]
