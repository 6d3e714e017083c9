"""Faults of a machine over parts made of lists: what breaks, what is told of it, and that its end undoes it."""

from __future__ import annotations

from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.hardware.disk_world import SECTOR, World
from tests.unit.hardware.io_world import World as IoWorld

from lamina_hardware.devices.kernel import KernelDevice, refuse_fault
from lamina_hardware.domain.devices.device import DeviceState
from lamina_hardware.domain.disk.transfer import Operation, Result
from lamina_hardware.domain.machine_events import CoreChange, MemoryFailure
from lamina_hardware.faults.devices import DeviceFaults
from lamina_hardware.faults.disks import DiskFaults
from lamina_hardware.faults.host import HardwareFaults
from lamina_hardware.faults.nics import NicFaults
from lamina_hardware.names import Names
from lamina_kit.errors import Aborted, FailedPrecondition, NotFound, PermissionDenied, Unimplemented
from lamina_kit.faults.kinds import Breakage, FaultKind

RAM = 1 << 20
HOST = "hosts/h1"


class Machine:
    """Notes what it is told; its parts are put there by each test."""

    def __init__(self, faults: Any, *more: Any, **parts: Any) -> None:
        self.names = Names("h1")
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.news: list[object] = []
        self.kinds: dict[str, FaultKind] = {}
        self.__dict__.update(parts)
        faults(self, *more).register(SimpleNamespace(register=self._register))

    def _register(self, kind: FaultKind) -> None:
        self.kinds[kind.name] = kind

    def record(self, object: str, event: str, **inputs: Any) -> None:
        """Notes an event; each has the fault as its cause."""
        assert inputs.pop("cause") == "faults/f"
        inputs.pop("rule", None)
        self.events.append((object, event, inputs))

    def note(self, news: object) -> None:
        """Notes news."""
        self.news.append(news)

    def breakage(self, kind: str, object: str, **given: int) -> Breakage:
        """Returns a request as the kit gives it to the kind."""
        return self.kinds[kind].check("faults/f", object, [(key, str(value)) for key, value in given.items()], 0)

    async def inject(self, kind: str, object: str, **given: int) -> dict[str, object]:
        """Injects a fault; returns its effects."""
        found = self.kinds[kind].inject(self.breakage(kind, object, **given))
        return dict(await found if isinstance(found, Awaitable) else found)

    def clear(self, kind: str, object: str, **given: int) -> None:
        """Ends a fault."""
        clear = self.kinds[kind].clear
        assert clear is not None
        clear(self.breakage(kind, object, **given))

    def told(self) -> list[str]:
        """Returns the events so far, and forgets them."""
        found, self.events = [event for _, event, _ in self.events], []
        return found


def disk_machine() -> tuple[Machine, World]:
    """Returns a machine with the disk `d`."""
    world = World()
    disks = SimpleNamespace(get=lambda name: {"d": world.disk}[name], find={"d": world.disk}.get)
    return Machine(DiskFaults, disks=disks), world


DISK = "hosts/h1/disks/d"


@pytest.mark.parametrize(
    ("kind", "given", "broken", "begin", "end"),
    [
        ("disk-read-only", {}, {"read_only": True}, "disk.read_only", "disk.read_only_over"),
        ("disk-full", {}, {"full": True}, "disk.full", "disk.full_over"),
        ("disk-failed", {}, {"failed": True}, "disk.failed", "disk.repaired"),
        ("disk-error", {"offset": 5, "size": 7}, {"bad": (5, 12)}, "disk.bad", "disk.bad_over"),
        ("disk-error", {"offset": 5}, {"bad": (5, 5 + 4096)}, "disk.bad", "disk.bad_over"),
        ("torn-write", {"sectors": 3}, {"tear_after": 3}, "disk.will_tear", "disk.repaired"),
    ],
)
async def test_a_disk_breaks_and_works_again(
    kind: str, given: dict[str, int], broken: dict[str, object], begin: str, end: str
) -> None:
    """A fault breaks what it says and no more, both its ends are told, and its end leaves the disk whole."""
    machine, world = disk_machine()
    whole = vars_of(world.disk.broken)
    await machine.inject(kind, DISK, **given)
    assert vars_of(world.disk.broken) == whole | broken
    machine.clear(kind, DISK, **given)
    assert vars_of(world.disk.broken) == whole
    assert machine.told() == [begin, end]
    machine.disks.find = lambda name: None  # type: ignore[attr-defined]
    machine.clear(kind, DISK, **given)
    assert machine.told() == [], "of a disk that is gone nothing is told"


def vars_of(broken: Any) -> dict[str, object]:
    """Returns what is broken of a disk, by name."""
    return {name: getattr(broken, name) for name in ("failed", "read_only", "full", "bad", "powerless", "tear_after")}


async def test_a_disk_that_fails_ends_its_transfers() -> None:
    """What waits and what is under way ends as failed, and the fault says how many that were."""
    machine, world = disk_machine()
    asked = [world.ask(Operation.READ, offset=n * SECTOR) for n in range(40)]
    assert await machine.inject("disk-failed", DISK) == {"transfers_ended": 40}
    assert {transfer.result for transfer in asked} == {Result.DISK_FAILED}


async def test_bytes_are_bad_once() -> None:
    """A second piece of bad bytes is refused, and the first stays."""
    machine, world = disk_machine()
    await machine.inject("disk-error", DISK, offset=0)
    with pytest.raises(FailedPrecondition):
        await machine.inject("disk-error", DISK, offset=8192)
    assert world.disk.broken.bad == (0, 4096)


class Bus:
    """Words of RAM, of which others change one at the first try, and frames that failed."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.failed: set[int] = set()
        self.others = [0x40]

    def load64(self, address: int) -> int:
        """Loads a word."""
        return self.words.get(address, 0)

    def cas64(self, address: int, expected: int, new: int) -> int:
        """Exchanges a word."""
        if self.others:
            self.words[address] = self.load64(address) | self.others.pop()
        old = self.load64(address)
        if old == expected:
            self.words[address] = new
        return old

    def fail(self, frame: int) -> None:
        """Fails a frame."""
        self.failed.add(frame)

    def mend(self, frame: int) -> None:
        """Mends it."""
        self.failed.discard(frame)


class Dispatcher:
    """Notes what it is asked."""

    def __init__(self, lost: list[bool]) -> None:
        self.asked: list[object] = []
        self._lost = lost

    async def drop_written_code(self) -> None:
        """Notes it."""
        self.asked.append("drop_written_code")

    async def forget_translations(self) -> None:
        """Notes it."""
        self.asked.append("forget_translations")

    async def take_out(self, core: int) -> int:
        """Takes a core out, on which two contexts ran."""
        self._lost[core] = True
        return 2

    def put_back(self, core: int) -> None:
        """Puts it back."""
        self._lost[core] = False


def host_machine(cores: int = 3) -> Any:
    """Returns a machine of cores and 1 MiB of RAM."""
    lost = [False] * cores
    engine = SimpleNamespace(arbiter=SimpleNamespace(lost=lost))
    return Machine(HardwareFaults, cores, RAM, engine=engine, dispatcher=Dispatcher(lost), bus=Bus(), lost=lost)


async def test_a_bit_flips_beside_what_others_write() -> None:
    """The bit of its byte is turned, what a core wrote into the word stays, and value and frame are told."""
    machine = host_machine()
    effects = await machine.inject("bit-flip", HOST, address=0x5003, bit=7)
    assert machine.bus.words == {0x5000: 1 << 31 | 0x40}
    assert effects == {"was": 0, "is": 1, "frame": 5}
    assert machine.events == [(HOST, "bit.flipped", {"address": "0x5003", "bit": 7, "was": 0})]
    assert machine.dispatcher.asked == ["drop_written_code"]
    assert await machine.inject("bit-flip", HOST, address=0x5003, bit=7) == {"was": 1, "is": 0, "frame": 5}
    assert machine.bus.words == {0x5000: 0x40}


async def test_memory_fails_and_is_corrected() -> None:
    """Errors are counted by frame and told; what failed is met by all cores, until it is mended."""
    machine = host_machine()
    assert await machine.inject("memory-corrected", HOST, address=0x2345) == {"count": 1}
    assert (machine.bus.failed, machine.dispatcher.asked) == (set(), [])
    assert await machine.inject("memory-failed", HOST, address=0x2FFF) == {"frame": 2, "count": 2}
    assert (machine.bus.failed, machine.dispatcher.asked) == ({2}, ["forget_translations"])
    assert await machine.inject("memory-corrected", HOST, address=0x3000) == {"count": 1}
    machine.clear("memory-failed", HOST, address=0x2FFF)
    assert machine.bus.failed == set()
    assert machine.news == [
        MemoryFailure(0x2345, 1, True, 1), MemoryFailure(0x2FFF, 1, False, 2), MemoryFailure(0x3000, 1, True, 1),
    ]  # fmt: skip
    assert machine.events[1] == (HOST, "memory.failed", {"address": "0x2fff", "frame": 2, "count": 2})
    assert machine.told() == ["memory.corrected", "memory.failed", "memory.corrected", "memory.mended"]
    failed = machine.kinds["memory-failed"]
    parts = {failed.part(machine.breakage("memory-failed", HOST, address=a)) for a in (0x2000, 0x2FFF, 0x3000)}
    assert parts == {"frame 2", "frame 3"}


async def test_cores_are_lost_but_for_the_last() -> None:
    """A core is lost once and comes back; the last one that works stays; both are told."""
    machine, core = host_machine(), "hosts/h1/cores/{}".format
    assert await machine.inject("core-lost", core(2)) == {"contexts_moved": 2, "cores_left": 2}
    with pytest.raises(FailedPrecondition) as twice:
        await machine.inject("core-lost", core(2))
    await machine.inject("core-lost", core(0))
    with pytest.raises(FailedPrecondition) as last:
        await machine.inject("core-lost", core(1))
    assert (twice.value.reason, last.value.reason) == ("CORE_LOST", "CORE_IS_LAST")
    machine.clear("core-lost", core(2))
    assert machine.lost == [True, False, False]
    assert machine.news == [CoreChange(2, lost=True), CoreChange(0, lost=True), CoreChange(2, lost=False)]
    assert machine.told() == ["core.lost", "core.lost", "core.returned"]
    for name in (core(3), core("x"), "hosts/h2/cores/0"):
        with pytest.raises(NotFound):
            await machine.inject("core-lost", name)


async def test_a_link_flaps() -> None:
    """A NIC loses its link and has it again; whether it had one is told."""
    link: list[bool] = []
    device = SimpleNamespace(nic=SimpleNamespace(is_link_up=True), break_link=link.append)
    machine = Machine(NicFaults, nics=SimpleNamespace(get=lambda name: {"n": device}[name]))
    assert await machine.inject("link-flap", "hosts/h1/nics/n") == {"was_up": True}
    machine.clear("link-flap", "hosts/h1/nics/n")
    assert (link, machine.told()) == ([True, False], ["link.broken", "link.mended"])


class Devices:
    """Finds one device, and notes what is done to it."""

    def __init__(self) -> None:
        self.device = IoWorld().devices.get("e0")
        self.done: list[tuple[Any, ...]] = []

    def find(self, name: str) -> Any:
        """Returns the device."""
        return self.device

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.done.append((name, *given))


DEVICE = "hosts/h1/devices/e0"


async def test_devices_break() -> None:
    """Refused transfers add up; a device fails and recovers, is pulled out and replaced; a failed one stays."""
    devices = Devices()
    machine, device = Machine(DeviceFaults, devices=devices), devices.device
    device.driver = "h1/x"
    assert await machine.inject("dma-fault", DEVICE) == {"transfers": 1}
    assert await machine.inject("dma-fault", DEVICE, transfers=4) == {"transfers": 5}
    assert (device.refusals, device.cause) == (5, "faults/f")
    assert await machine.inject("device-failed", DEVICE) == {"driver": "h1/x"}
    device.state = DeviceState.FAILED
    with pytest.raises(FailedPrecondition):
        await machine.inject("device-removed", DEVICE)
    machine.clear("device-failed", DEVICE)
    device.state = DeviceState.IDLE
    assert await machine.inject("device-removed", DEVICE) == {"driver": "h1/x"}
    machine.clear("device-removed", DEVICE)
    again = ("plug", device.id, device.kind, device.pci, device.group, device.model)
    assert devices.done == [("fail", device), ("recover", device), ("unplug", device), again]
    assert machine.told() == ["device.failed", "device.recovered", "device.removed", "device.added"]


async def test_devices_of_the_kernel_do_not_break() -> None:
    """What the kernel below has is shown, and no fault is injected there; its configuration is the kernel's."""
    devices = Devices()
    shown = bytearray(64)
    devices.device.model = KernelDevice("0000:00:01.0", lambda: bytes(shown))
    machine = Machine(DeviceFaults, devices=devices)
    for kind in ("dma-fault", "device-failed", "device-removed"):
        with pytest.raises(Unimplemented):
            await machine.inject(kind, DEVICE)
    refuse_fault(IoWorld().devices.get("e0"))
    with pytest.raises(PermissionDenied):
        devices.device.model.configuration()
    for size in (256, 4096):
        shown[:] = bytes(size)
        assert devices.device.model.configuration() == bytes(size)
    shown.clear()
    with pytest.raises(Aborted):
        devices.device.model.configuration()
