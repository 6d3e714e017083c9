"""A small world around the model engine: cores with TLBs, a holder with a table of its own, a seeded scheduler.

Everything that the engine's steps yield is performed here, in an order that the seed chooses, so other steps run in
between. Cores and holders use frames exactly as hardware would: through what their TLB or table says, until a shootdown
or a revocation took it away. A right that was not taken away in time shows as bytes that are not what they should be.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Generator, Hashable
from typing import Any

from tests.property.mmu.books import check_books

from lamina_kit.effects import Sleep, WaitFor
from lamina_kit.errors import LaminaError
from lamina_mmu.domain.effects import Answer, Shootdown
from lamina_mmu.domain.hold import Age, Grant, Hold, PageBits, Revocation
from lamina_mmu.domain.ports import Ports, Settings
from lamina_mmu.engines.model.engine import ModelEngine

PAGE = 4096
WRITE = 2


class BytesRam:
    """RAM in a bytearray; what it is asked for is what `domain.ram.Ram` states."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.bytes = bytearray(frames * PAGE)
        self.words = memoryview(self.bytes).cast("Q")
        self.pinned: dict[int, int] = {}

    def read(self, pa: int, n: int) -> bytes:
        """Returns bytes."""
        return bytes(self.bytes[pa : pa + n])

    def write(self, pa: int, data: Any) -> None:
        """Stores bytes."""
        data = memoryview(data).cast("B")
        assert pa >= 0 and pa + len(data) <= len(self.bytes)
        memoryview(self.bytes)[pa : pa + len(data)] = data

    def view(self, pa: int, n: int) -> memoryview:
        """Returns a live view."""
        return memoryview(self.bytes)[pa : pa + n].toreadonly()

    def zero(self, frame: int) -> None:
        """Zeroes a frame."""
        self.write(frame * PAGE, bytes(PAGE))

    def copy_frame(self, src: int, dst: int) -> None:
        """Copies a frame."""
        self.write(dst * PAGE, self.read(src * PAGE, PAGE))

    def load64(self, pa: int) -> int:
        """Returns a word."""
        return self.words[pa // 8]

    def cas64(self, pa: int, expected: int, new: int) -> int:
        """Compares and swaps."""
        found = self.words[pa // 8]
        if found == expected:
            self.words[pa // 8] = new
        return found

    def pins(self, frame: int) -> int:
        """Returns pins."""
        return self.pinned.get(frame, 0)

    def pinned_frames(self, first: int, count: int) -> list[int]:
        """Returns pinned frames."""
        return sorted(frame for frame in self.pinned if first <= frame < first + count)

    def pin(self, frame: int) -> None:
        """Pins."""
        self.pinned[frame] = self.pins(frame) + 1

    def unpin(self, frame: int) -> None:
        """Takes a pin away."""
        assert self.pinned[frame] > 0
        self.pinned[frame] -= 1
        if not self.pinned[frame]:
            del self.pinned[frame]


class DictSwap:
    """A swap area in a dict."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.pages: dict[int, bytes] = {}

    def write(self, slot: int, data: Any) -> None:
        """Stores a page."""
        self.pages[slot] = bytes(data)

    def read(self, slot: int) -> bytes:
        """Returns a page."""
        return self.pages[slot]


class Task:
    """A step at work. `key` is what it waits for; None: it can go on, with `value`."""

    def __init__(self, step: Generator[Any, Any, Any], done: Callable[[Task], None]) -> None:
        self.step, self.done = step, done
        self.key: Hashable = None
        self.shootdown: Shootdown | None = None
        self.value: Any = None
        self.result: Any = None
        self.error: LaminaError | None = None
        self.finished = False


class World:
    """An engine with `frames` of RAM and `slots` of swap; `seed` decides every order."""

    def __init__(self, seed: int, frames: int, slots: int) -> None:
        self.rng = random.Random(seed)
        self.ram = BytesRam(frames)
        self.store = DictSwap(slots)
        self.time = 0
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        ports = Ports("h1", self.ram, self.store, self.now, self.record, self.wake)
        self.engine = ModelEngine(ports, Settings())
        self.m = self.engine.machine
        self.tasks: list[Task] = []
        self.tlb: dict[tuple[int, int, int], tuple[int, bool]] = {}
        self.shootdowns = 0

    def now(self) -> int:
        """Returns a time that goes on by one."""
        self.time += 1
        return self.time

    def record(self, object: str, event: str, **inputs: Any) -> None:
        """Keeps an event."""
        self.events.append((object, event, inputs))

    def wake(self, key: Hashable, value: object = None) -> None:
        """Lets the tasks that wait for a key go on."""
        for task in self.tasks:
            if task.key == key:
                task.key, task.value = None, value

    # ── tasks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, step: Generator[Any, Any, Any], done: Callable[[Task], None] = lambda task: None) -> Task:
        """Begins a step; it runs up to its first yield now. `done` is called at its end, however it ends."""
        task = Task(step, done)
        self.tasks.append(task)
        self.advance(task)
        return task

    def advance(self, task: Task) -> None:
        """Performs what a task waits for, and lets it run to its next yield."""
        if task.shootdown is not None:
            self.shoot(task.shootdown)
            task.shootdown = None
        try:
            value, task.value = task.value, None
            effect = task.step.send(value)
        except StopIteration as end:
            self.tasks.remove(task)
            task.finished, task.result = True, end.value
            task.done(task)
            return
        except LaminaError as error:
            self.tasks.remove(task)
            task.finished, task.error = True, error
            task.done(task)
            return
        if isinstance(effect, Shootdown):
            task.shootdown = effect
        elif isinstance(effect, WaitFor | Answer):
            task.key = effect.key
        elif isinstance(effect, Sleep):
            task.value = None
        else:
            assert effect == Sleep(0), effect

    def turn(self) -> bool:
        """Lets one task that can go on do so; returns whether there was one."""
        ready = [task for task in self.tasks if task.key is None]
        if not ready:
            return False
        self.advance(self.rng.choice(ready))
        return True

    def run(self, step: Generator[Any, Any, Any]) -> Any:
        """Runs a step to its end, with everything else that is at work, and returns its result."""
        task = self.start(step)
        while not task.finished:
            assert self.turn() or self.serve_holders(), f"nothing can go on: {[one.key for one in self.tasks]}"
        if task.error is not None:
            raise task.error
        return task.result

    def run_apart(self, step: Generator[Any, Any, Any], still: Task) -> Any:
        """Runs a step to its end while the task `still` does not go on; returns its result."""
        task = self.start(step)
        while not task.finished:
            others = [one for one in self.tasks if one is not still and one.key is None]
            assert others, "nothing else can go on"
            self.advance(self.rng.choice(others))
        if task.error is not None:
            raise task.error
        return task.result

    def run_holder(self, task: Task, holder: Holder) -> None:
        """Lets a task run, its holder answering what it is asked, until its victims' root is to be shot down."""
        while task.shootdown is None or not any(flags & 2 for flags in self.m.frames.flags):
            if task.key is None:
                self.advance(task)
            else:
                assert holder.step(), task.key

    def settle(self) -> None:
        """Runs everything that is at work to its end."""
        while self.tasks:
            assert self.turn() or self.serve_holders(), f"nothing can go on: {[one.key for one in self.tasks]}"

    def serve_holders(self) -> bool:
        """Lets holders answer; overridden by worlds that have some."""
        return False

    # ── cores ────────────────────────────────────────────────────────────────────────────────────────────────────

    def shoot(self, effect: Shootdown) -> None:
        """Drops translations."""
        self.shootdowns += 1
        for core, root, vpn in list(self.tlb):
            address = vpn * PAGE
            if root == effect.root and (
                not effect.ranges or any(start <= address < start + size for start, size in effect.ranges)
            ):
                del self.tlb[core, root, vpn]

    def translate(self, root: int, address: int, write: bool) -> int | None:
        """Returns the physical address as one of two cores finds it: its TLB, then the tables; None: page fault."""
        vpn = address // PAGE
        core = self.rng.randrange(2)
        known = self.tlb.get((core, root, vpn))
        if known is not None and (known[1] or not write):
            return known[0] * PAGE + address % PAGE
        table = root
        for shift in (39, 30, 21, 12):
            place = table + 8 * (address >> shift & 511)
            entry = self.ram.load64(place)
            if not entry & 1 or not entry & 4 or (write and not entry & 2):
                return None
            huge = shift == 21 and entry & 0x80
            bits = 0x20 | (0x40 if write and (shift == 12 or huge) else 0)
            assert self.ram.cas64(place, entry, entry | bits) == entry
            table = entry & 0x000F_FFFF_FFFF_F000
            if huge:
                table += address & 0x1F_F000
                break
        self.tlb[core, root, vpn] = (table // PAGE, bool(entry & 2) and bool(write or entry & 0x40))
        return table + address % PAGE

    def store64(self, pa: int, value: int) -> None:
        """Stores a word as a core does."""
        struct.pack_into("<Q", self.ram.bytes, pa, value)

    def load(self, pa: int) -> int:
        """Loads a word as a core does."""
        return int(struct.unpack_from("<Q", self.ram.bytes, pa)[0])

    # ── what must hold ───────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Checks the books when nothing is at work: references, reverse map, charges, slots, free frames."""
        assert not self.tasks
        check_books(self.m)


class Holder:
    """A hypervisor with a table of its own for one space: guest page → [frame, writable, accessed, dirty]."""

    def __init__(self, world: World, hold: Hold) -> None:
        self.world, self.hold = world, hold
        self.table: dict[int, list[Any]] = {}
        self.position = 0
        self.silent = False

    def step(self) -> bool:
        """Takes the next message, if there is one; returns whether there was."""
        if self.silent or not self.hold.outbox:
            return False
        position, message = self.hold.outbox.popleft()
        assert position == self.position + 1, "a gap on the stream"
        self.position = position
        if isinstance(message, Grant):
            if self.world.ram.load64(self.hold.eptp):
                return True  # the root is void: the compare-and-swap that would build a way to the page fails
            old = self.table.get(message.address)
            dirty = old is not None and old[0] == message.frame and old[3]
            self.table[message.address] = [message.frame, message.writable, True, dirty]
        elif isinstance(message, Revocation):
            bits = []
            for address in message.addresses:
                entry = self.table.get(address)
                if entry is None:
                    continue
                bits.append(PageBits(address, entry[2], entry[3]))
                if message.write_only:
                    entry[1] = entry[3] = False
                else:
                    del self.table[address]
            self.world.engine.acknowledge(self.hold, message.revocation, bits)
        elif isinstance(message, Age):
            bits = [
                PageBits(address, self.table[address][2], self.table[address][3])
                for address in message.addresses
                if address in self.table
            ]
            for one in bits:
                self.table[one.address][2] = False
            self.world.engine.acknowledge(self.hold, message.sequence, bits)
        return True

    def access(self, address: int, write: bool) -> int | None:
        """Returns the physical address as the guest's core would find it; None: EPT violation."""
        entry = self.table.get(address // PAGE * PAGE)
        if entry is None or (write and not entry[1]):
            return None
        entry[2] = True
        entry[3] = entry[3] or write
        return int(entry[0]) * PAGE + address % PAGE
