"""Chapter 6: a virtual machine boots the guest kernel, and one of its addresses is followed down to the host's RAM."""

from __future__ import annotations

import asyncio
from typing import Any

from lamina_cli.client.client import Client
from lamina_cli.demo.story import Story
from lamina_cli.output import printing
from lamina_cli.output.enum_words import word

VM = "demo"
MEMORY = 64 << 20
PROMPT = b"> "
PATIENCE_SECONDS = 30.0
EXAMPLE_GVA = 0x1000
"""The guest virtual address of the document's example (S-09); the guest kernel maps it."""


async def machine(story: Story, client: Client) -> None:
    """Boots the guest kernel."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb
    from lamina.hypervisor.v1 import hypervisor_pb2_grpc as services

    from lamina_cli.guests.kernel import kernel_bytes, upload

    story.chapter("A virtual machine boots the guest kernel")
    stub = client.stub("hypervisor", services.VirtualMachinesStub)
    kernel = kernel_bytes(None)
    story.show(f"guests/kernel compiled: {len(kernel):,} bytes of ELF for ring 0")
    vm = await stub.CreateVirtualMachine(
        pb.CreateVirtualMachineRequest(
            vm_id=VM,
            virtual_machine=pb.VirtualMachine(
                vcpu_count=1, memory_bytes=MEMORY, kernel_digest=await upload(stub, kernel)
            ),
        )
    )
    await stub.StartVirtualMachine(pb.StartVirtualMachineRequest(name=vm.name))
    serial = await until_prompt(stub, vm.name)
    story.show(serial.decode(errors="replace"))
    story.check("the guest kernel reaches its prompt", serial.endswith(PROMPT), repr(serial[-40:]))
    await ledger(story, stub, vm.name)
    await walk(story, client, stub, vm.name)
    stopped = await stub.StopVirtualMachine(pb.StopVirtualMachineRequest(name=vm.name))
    story.equal("it powers off", word(pb.VirtualMachine.State, stopped.state), "stopped")


async def until_prompt(stub: Any, name: str) -> bytes:
    """Returns the serial output until the prompt, or what came within 30 s."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    text = b""
    stream = stub.ReadSerial(pb.ReadSerialRequest(name=name, follow=True))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for piece in stream:
                text += piece.data
                if text.endswith(PROMPT):
                    break
    except TimeoutError:
        return text
    finally:
        stream.cancel()
    return text


async def ledger(story: Story, stub: Any, name: str) -> None:
    """Shows the exit ledger, and compares its output exits with the serial bytes."""
    from lamina.hardware.v1 import hardware_pb2
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    found = await stub.GetExitLedger(pb.GetExitLedgerRequest(name=name))
    serial = b"".join([piece.data async for piece in stub.ReadSerial(pb.ReadSerialRequest(name=name))])
    story.table(
        ("EXIT", "WHAT", "COUNT", "HOST TIME"),
        (
            (
                word(hardware_pb2.ExitReason, item.reason),
                item.qualifier or "-",
                item.count,
                printing.duration(item.host_time_ns),
            )
            for item in found.rows
        ),
    )
    written = sum(item.count for item in found.rows if item.qualifier == SERIAL_OUTPUT)
    story.check(
        f"one exit a byte: {written} output exits, {len(serial)} bytes on the serial line",
        written == len(serial) == found.serial_output_bytes > 0,
        f"{written} exits, {len(serial)} bytes read, {found.serial_output_bytes} counted",
    )


SERIAL_OUTPUT = "out 0x3f8 thr"
"""How the ledger names the exits that write a byte to the serial port."""


async def walk(story: Story, client: Client, stub: Any, name: str) -> None:
    """Translates a guest address, and reads every entry again from RAM."""
    from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    found = await stub.TranslateAddress(pb.TranslateAddressRequest(name=name, address=EXAMPLE_GVA))
    visited = [entry for step in found.guest_steps for entry in (*step.ept_steps, step.entry) if entry.table]
    visited += found.ept_steps
    story.table(
        ("TABLE", "INDEX", "INPUT", "ENTRY AT", "ENTRY", "BITS"),
        (
            (
                entry.table,
                entry.index,
                f"{entry.input_address:#x}",
                f"{entry.entry_address:#x}",
                f"{entry.entry:#x}",
                " ".join(entry.bits),
            )
            for entry in visited
        ),
    )
    story.check(
        f"GVA {found.guest_virtual_address:#x} → GPA {found.guest_physical_address:#x} → "
        f"HPA {found.host_physical_address:#x}: three kinds of address, two translations, {len(visited)} entries",
        found.outcome == pb.TranslateAddressResponse.OUTCOME_TRANSLATED,
        word(pb.TranslateAddressResponse.Outcome, found.outcome),
    )
    memory = client.stub("hardware", hardware_pb2_grpc.MemoryStub)
    same = 0
    for entry in visited:
        read = await memory.ReadMemory(hardware_pb2.ReadMemoryRequest(address=entry.entry_address, size_bytes=8))
        same += int.from_bytes(read.data, "little") == entry.entry
    story.equal("each of these entries is 8 bytes in the host's RAM", same, len(visited))
