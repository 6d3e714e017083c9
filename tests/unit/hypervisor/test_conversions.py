"""The inventory of a host, and the contract's words for it: ranges, defaults, what is shown."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.common.v1 import access_pb2
from lamina.hypervisor.v1 import devices_pb2
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from tests.unit.hypervisor.test_hypervisor import NAME

from lamina_hypervisor import convert
from lamina_hypervisor.config import HypervisorConfig
from lamina_hypervisor.domain.exits.ledger import ExitLedger
from lamina_hypervisor.domain.exits.time_slices import Slice, SliceEnd, SliceLedger
from lamina_hypervisor.domain.inventory import DEFAULT_PAGE, MAX_PAGE, MAX_VMS, Inventory
from lamina_hypervisor.domain.memory.translation import Access
from lamina_hypervisor.domain.vm import Definition, Event, State, Vm
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
)

# ── the inventory ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_slots_and_generations_never_repeat() -> None:
    """The lowest free slot is taken; its generation is above every one that is known, in whatever order it came."""
    inventory = Inventory("h1")
    inventory.remember(1, 5)
    inventory.remember(1, 3)
    inventory.adopt(Vm("hosts/h1/vms/a", 2, 2, Definition("a", 1, 1, ""), 0))
    first, _ = inventory.create(Definition("b", 1, 1, ""), "", 7)
    second, _ = inventory.create(Definition("c", 1, 1, ""), "", 7)
    assert [(vm.slot, vm.generation) for vm in (first, second)] == [(1, 6), (3, 1)]
    assert (first.name, first.create_time_ns, first.state) == ("hosts/h1/vms/b", 7, State.STOPPED)
    inventory.adopt(Vm("hosts/h1/vms/b", 1, 4, Definition("b", 1, 1, ""), 0))
    inventory.delete(inventory.get("hosts/h1/vms/b"))
    assert inventory.create(Definition("d", 1, 1, ""), "", 0)[0].generation == 7


def test_a_host_has_so_many_vms() -> None:
    """1024 VMs are taken and one more is not; without a request id nothing is repeated."""
    inventory = Inventory("h1")
    for number in range(MAX_VMS):
        inventory.create(Definition(f"v{number}", 1, 1, ""), "", 0)
    with pytest.raises(ResourceExhausted) as caught:
        inventory.create(Definition("more", 1, 1, ""), "", 0)
    assert caught.value.reason == "TOO_MANY_VMS"
    assert [len(inventory.page(size, "")[0]) for size in (0, 5, 5000)] == [DEFAULT_PAGE, 5, MAX_PAGE]
    last, token = inventory.page(1, "hosts/h1/vms/v998")
    assert ([vm.definition.vm_id for vm in last], token) == (["v999"], "")
    with pytest.raises(InvalidArgument):
        inventory.page(1, "nonsense")


def test_a_vm_with_power_is_not_forgotten() -> None:
    """A VM is deleted without power alone; its state says what is needed."""
    inventory = Inventory("h1")
    vm, _ = inventory.create(Definition("a", 1, 1, ""), "", 0)
    vm.apply(Event.START)
    with pytest.raises(FailedPrecondition, match="STARTING"):
        inventory.delete(vm)
    assert inventory.all() == [vm]


def test_the_weight_has_its_end() -> None:
    """A VM of very many vCPUs has the largest weight and no larger one."""
    assert Definition("a", 101, 0, "").run_weight == 10_000


# ── the contract's words ─────────────────────────────────────────────────────────────────────────────────────────────


def creation(**fields: Any) -> pb.CreateVirtualMachineRequest:
    """A creation that is right but for what is given."""
    request = {"vm_id": "a", "kernel": b"k", **fields.pop("request", {})}
    vm = pb.VirtualMachine(**{"memory_bytes": 2 << 20, **fields})
    return pb.CreateVirtualMachineRequest(virtual_machine=vm, **request)


def serial(port: int = 0) -> devices_pb2.Device:
    """A serial port."""
    return devices_pb2.Device(serial=devices_pb2.SerialDevice(port=port))


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, ""),
        ({"vcpu_count": 16, "memory_bytes": 64 << 30, "weight": 10_000, "label": "x" * 127}, ""),
        ({"command_line": "a b=c" * 409 + "xy", "memory_group": "g" * 255, "devices": [serial(0x3F8)]}, ""),
        ({"request": {"request_id": "r" * 127}}, ""),
        ({"request": {"kernel": b"k" * (4 << 20)}}, ""),
        ({"request": {"kernel": b""}, "kernel_digest": "d"}, ""),
        ({"vcpu_count": 17}, "virtual_machine.vcpu_count"),
        ({"memory_bytes": (2 << 20) - 4096}, "virtual_machine.memory_bytes"),
        ({"memory_bytes": (64 << 30) + 4096}, "virtual_machine.memory_bytes"),
        ({"memory_bytes": (2 << 20) + 1}, "virtual_machine.memory_bytes"),
        ({"weight": 10_001}, "virtual_machine.weight"),
        ({"label": "x" * 128}, "virtual_machine.label"),
        ({"memory_group": "g" * 256}, "virtual_machine.memory_group"),
        ({"command_line": "x" * 2048}, "virtual_machine.command_line"),
        ({"command_line": "é"}, "virtual_machine.command_line"),
        ({"devices": [serial(0x2F8)]}, "virtual_machine.devices[0].serial.port"),
        ({"devices": [devices_pb2.Device()]}, "virtual_machine.devices[0]"),
        ({"request": {"request_id": "r" * 128}}, "request_id"),
        ({"request": {"kernel": b"k" * ((4 << 20) + 1)}}, "kernel"),
        ({"request": {"kernel": b""}}, "kernel"),
        ({"kernel_digest": "d"}, "kernel"),
        ({"request": {"vm_id": "A"}}, "vm_id"),
    ],
)  # fmt: skip
def test_creations_have_their_ranges(fields: dict[str, Any], wrong: str) -> None:
    """What is just inside each range is taken, what is just outside is named."""
    request = creation(**fields)
    if not wrong:
        convert.check_create(request)
        return
    with pytest.raises(InvalidArgument) as caught:
        convert.check_create(request)
    assert [violation.field for violation in caught.value.violations] == [wrong]


def test_defaults_of_a_definition() -> None:
    """Without a count there is one vCPU, without a device the usual serial port; what is given is kept."""
    made = convert.definition(creation(), "sha256:1")
    assert (made.vm_id, made.vcpu_count, made.serial_ports, made.kernel_digest) == ("a", 1, (0x3F8,), "sha256:1")
    given = creation(vcpu_count=3, devices=[serial()], command_line="c", memory_group="g", weight=7, label="l")
    assert convert.definition(given, "d") == Definition("a", 3, 2 << 20, "d", "c", (0x3F8,), "g", 7, "l")


def test_small_checks() -> None:
    """Sizes of pages and of input have their ends, and page tokens are addresses in hexadecimal."""
    for size in (0, 50):
        convert.check_page(size, 50)
    for size in (-1, 51):
        with pytest.raises(InvalidArgument):
            convert.check_page(size, 50)
    for data in (b"x", bytes(4096)):
        convert.check_serial_input(data)
    for data in (b"", bytes(4097)):
        with pytest.raises(InvalidArgument):
            convert.check_serial_input(data)
    assert [convert.page_start(token) for token in ("", "5000", "f" * 12)] == [0, 0x5000, (1 << 48) - 1]
    for token in ("f" * 13, "5G", "A"):
        with pytest.raises(InvalidArgument) as caught:
            convert.page_start(token)
        assert caught.value.reason == "PAGE_TOKEN_INVALID"
    for kind, wanted in (
        (access_pb2.ACCESS_READ, Access(user=True)),
        (access_pb2.ACCESS_WRITE, Access(write=True, user=True)),
        (access_pb2.ACCESS_EXECUTE, Access(execute=True, user=True)),
    ):
        assert convert.access(pb.TranslateAddressRequest(access=kind, user=True)) == wanted
    assert convert.access(pb.TranslateAddressRequest()) == Access()
    for kept in (1, 1_000_000):
        HypervisorConfig(kept_slices=kept)
    for kept in (0, 1_000_001):
        with pytest.raises(InvalidArgument):
            HypervisorConfig(kept_slices=kept)


def test_ledgers_and_slices_are_shown_in_full() -> None:
    """Rows, totals, and a slice's times and end reach the contract."""
    ledger = ExitLedger()
    ledger.record(1, ExitReason.HLT, "interrupts on", 7)
    ledger.instructions = 99
    shown = convert.ledger_message(ledger, 5)
    (row,) = shown.rows
    assert (row.vcpu, row.reason, row.qualifier, row.count, row.host_time_ns) == (
        1, int(ExitReason.HLT), "interrupts on", 1, 7,
    )  # fmt: skip
    assert (shown.total_exits, shown.total_host_time_ns, shown.serial_output_bytes, shown.instructions) == (1, 7, 5, 99)
    entry = convert.slice_message(Slice(NAME, 2, 3, 4, 5, 6, 7, 8, SliceEnd.YIELDED))
    assert (entry.vcpu, entry.core, entry.start_time_ns, entry.run_time_ns) == (f"{NAME}/vcpus/2", 3, 4, 5)
    assert (entry.wait_time_ns, entry.exits, entry.instructions, entry.end) == (6, 7, 8, pb.Slice.END_YIELDED)


def test_slices_end_at_their_ends() -> None:
    """A run that ends exactly at ten milliseconds ends its slice; asking for none gives none."""
    from lamina_hypervisor.domain.exits.time_slices import SLICE_NS, SliceTimer

    slices = SliceLedger()
    timer = SliceTimer(slices, "vm", 0)
    timer.close(SliceEnd.HALTED)
    timer.ran(0, 0, SLICE_NS - 1, 0, 1)
    assert slices.latest(1)[0].end is SliceEnd.OPEN
    timer.ran(0, 0, 1, 0, 1)
    assert slices.latest(1)[0].end is SliceEnd.EXPIRED
    assert slices.latest(0) == []
    assert timer.count == 1
