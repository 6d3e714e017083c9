"""`lamina hypervisor`: virtual machines, their consoles, exits and addresses."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from lamina_cli.client.client import Client, Work, command
from lamina_cli.client.pagination import collect
from lamina_cli.guests.kernel import kernel_bytes, upload
from lamina_cli.input import parse
from lamina_cli.output import printing, walks
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.hypervisor.v1 import hypervisor_pb2
    from lamina.hypervisor.v1.hypervisor_pb2_grpc import VirtualMachinesStub

DEFAULT_MEMORY = 64 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    command(verbs.add_parser("list", help="list virtual machines"), machines, lists=True)
    create = verbs.add_parser("create", help="create a virtual machine")
    create.add_argument("vm", help="name")
    create.add_argument("--kernel", help="64-bit ELF kernel (default: the guest kernel under guests/kernel)")
    create.add_argument("--memory", type=parse.size, default=DEFAULT_MEMORY, help="RAM, for example 64M (default 64M)")
    create.add_argument("--vcpus", type=parse.whole(1, 16), default=1, help="number of virtual CPUs (default 1)")
    create.add_argument("--append", default="", help="kernel command line")
    command(create, create_machine)
    for verb, text, work in (
        ("start", "start a virtual machine", power("Start")),
        ("stop", "power a virtual machine off", power("Stop")),
        ("pause", "pause a virtual machine", power("Pause")),
        ("resume", "resume a virtual machine", power("Resume")),
        ("delete", "delete a virtual machine", delete),
        ("exits", "show a virtual machine's exits by reason", exits),
        ("vcpus", "show a virtual machine's virtual CPUs", vcpus),
        ("pages", "list the guest pages that have a frame", pages),
    ):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("vm", help="name")
        command(sub, work, lists=True)
    console = verbs.add_parser("console", help="print a virtual machine's serial output")
    console.add_argument("vm", help="name")
    console.add_argument("-f", "--follow", action="store_true", help="go on until the machine stops")
    command(console, print_console)
    send = verbs.add_parser("send", help="type a line into a virtual machine's serial port")
    send.add_argument("vm", help="name")
    send.add_argument("text", help="the line, without its end")
    command(send, send_line)
    walk = verbs.add_parser("translate", help="translate a guest address GVA → GPA → HPA, every table entry shown")
    walk.add_argument("vm", help="name")
    walk.add_argument("address", type=parse.address, help="guest virtual address")
    walk.add_argument("--vcpu", type=parse.INT32, default=0, help="virtual CPU whose tables are used (default 0)")
    command(walk, translate, lists=True)


def _machines(client: Client) -> VirtualMachinesStub:
    from lamina.hypervisor.v1 import hypervisor_pb2_grpc

    return client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)


async def name_of(client: Client, vm: str) -> str:
    """Returns the full name of a virtual machine."""
    from lamina_cli.client.resource_names import full_name

    return await full_name(client, "vms", vm, "hypervisor")


HEADERS = ("VM", "STATE", "VCPUS", "MEMORY", "MAPPED", "REASON")


def row(vm: hypervisor_pb2.VirtualMachine) -> tuple[object, ...]:
    """Returns the cells of a virtual machine."""
    from lamina.hypervisor.v1 import hypervisor_pb2

    return (
        last(vm.name),
        word(hypervisor_pb2.VirtualMachine.State, vm.state),
        vm.vcpu_count,
        printing.size(vm.memory_bytes),
        printing.size(vm.mapped_pages * 4096),
        ": ".join(filter(None, (vm.stop_reason, vm.stop_detail))) or "-",
    )


async def machines(client: Client, args: argparse.Namespace) -> None:
    """Lists virtual machines."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    listed = await collect(_machines(client).ListVirtualMachines, pb.ListVirtualMachinesRequest(), "virtual_machines")
    printing.show(listed, HEADERS, row, form=args.output)


async def create_machine(client: Client, args: argparse.Namespace) -> None:
    """Creates a virtual machine."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    stub = _machines(client)
    made = await stub.CreateVirtualMachine(
        pb.CreateVirtualMachineRequest(
            vm_id=args.vm,
            virtual_machine=pb.VirtualMachine(
                vcpu_count=args.vcpus,
                memory_bytes=args.memory,
                kernel_digest=await upload(stub, kernel_bytes(args.kernel)),
                command_line=args.append,
            ),
        )
    )
    print(made.name)


def power(verb: str) -> Work:
    """Returns the work of `start`, `stop`, `pause` and `resume`: one call, and the machine as it is then."""

    async def work(client: Client, args: argparse.Namespace) -> None:
        from lamina.hypervisor.v1 import hypervisor_pb2 as pb

        request = getattr(pb, f"{verb}VirtualMachineRequest")(name=await name_of(client, args.vm))
        vm = await getattr(_machines(client), f"{verb}VirtualMachine")(request)
        printing.show([vm], HEADERS, row, form=args.output, one=True)

    return work


async def delete(client: Client, args: argparse.Namespace) -> None:
    """Deletes a virtual machine."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    name = await name_of(client, args.vm)
    await _machines(client).DeleteVirtualMachine(pb.DeleteVirtualMachineRequest(name=name))
    print(f"deleted {name}")


async def exits(client: Client, args: argparse.Namespace) -> None:
    """Shows exits by reason."""
    from lamina.hardware.v1 import hardware_pb2
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    ledger = await _machines(client).GetExitLedger(pb.GetExitLedgerRequest(name=await name_of(client, args.vm)))
    if args.output == "json":
        printing.as_json(ledger)
        return
    printing.table(
        ("VCPU", "REASON", "WHAT", "COUNT", "HOST TIME"),
        (
            (
                item.vcpu,
                word(hardware_pb2.ExitReason, item.reason),
                item.qualifier or "-",
                f"{item.count:,}",
                printing.duration(item.host_time_ns),
            )
            for item in ledger.rows
        ),
    )
    print(
        f"{ledger.total_exits:,} exits in {ledger.instructions:,} instructions, "
        f"{printing.duration(ledger.total_host_time_ns)} in the hypervisor; "
        f"{ledger.serial_output_bytes:,} bytes written to the serial port"
    )


async def vcpus(client: Client, args: argparse.Namespace) -> None:
    """Shows virtual CPUs."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    found = await _machines(client).ListVcpus(pb.ListVcpusRequest(name=await name_of(client, args.vm)))
    printing.show(
        found.vcpus,
        ("VCPU", "STATE", "CORE", "RIP", "CR3", "SLICES", "EXITS", "RUN", "STEAL", "HALT"),
        lambda item: (
            item.number,
            word(pb.Vcpu.State, item.state),
            item.last_core,
            f"{item.registers.flow.rip:#x}",
            f"{item.registers.control.cr3:#x}",
            item.slices,
            f"{item.exits:,}",
            printing.duration(item.run_time_ns),
            printing.duration(item.steal_time_ns),
            printing.duration(item.halt_time_ns),
        ),
        form=args.output,
    )


async def pages(client: Client, args: argparse.Namespace) -> None:
    """Lists guest pages."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    request = pb.ListGuestPagesRequest(name=await name_of(client, args.vm))
    printing.show(
        await collect(_machines(client).ListGuestPages, request, "pages"),
        ("GPA", "FRAME", "EPT ENTRY", "BITS"),
        lambda item: (
            f"{item.guest_physical_address:#x}",
            f"{item.frame:#x}",
            f"{item.entry:#018x}",
            " ".join(item.bits),
        ),
        form=args.output,
    )


async def print_console(client: Client, args: argparse.Namespace) -> None:
    """Prints serial output."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    request = pb.ReadSerialRequest(name=await name_of(client, args.vm), follow=args.follow)
    async for piece in _machines(client).ReadSerial(request):
        sys.stdout.buffer.write(piece.data)
        sys.stdout.buffer.flush()


async def send_line(client: Client, args: argparse.Namespace) -> None:
    """Types a line."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    request = pb.WriteSerialRequest(name=await name_of(client, args.vm), data=args.text.encode() + b"\n")
    await _machines(client).WriteSerial(request)


async def translate(client: Client, args: argparse.Namespace) -> int:
    """Translates a guest address."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    request = pb.TranslateAddressRequest(name=await name_of(client, args.vm), vcpu=args.vcpu, address=args.address)
    found = await _machines(client).TranslateAddress(request)
    if args.output == "json":
        printing.as_json(found)
    else:
        print_walk(found)
    return 0 if found.outcome == pb.TranslateAddressResponse.OUTCOME_TRANSLATED else 1


def print_walk(found: hypervisor_pb2.TranslateAddressResponse) -> None:
    """Prints a two-stage walk: each guest entry with the EPT walk that finds it, then the one of the page itself."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    visited = [entry for step in found.guest_steps for entry in (*step.ept_steps, step.entry) if entry.table]
    walks.steps([*visited, *found.ept_steps])
    outcome = word(pb.TranslateAddressResponse.Outcome, found.outcome)
    print(
        f"GVA {found.guest_virtual_address:#x} → GPA {found.guest_physical_address:#x} → "
        f"HPA {found.host_physical_address:#x}: {outcome}, {len(visited) + len(found.ept_steps)} entries visited"
    )
