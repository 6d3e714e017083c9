"""A holder whose second stage has large entries, and a play of everything that can happen to them."""

from __future__ import annotations

from typing import Any

from tests.property.mmu.world import PAGE, Holder, Task, World

from lamina_kit.errors import LaminaError
from lamina_mmu.domain.hold import Age, ExtentRevocation, Grant, GrantExtent, Hold, PageBits, Revocation
from lamina_mmu.domain.session import NOBODY
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind

EXTENT = 2 << 20
RW = 3


class LargeHolder(Holder):
    """A hypervisor with entries of both sizes. `large`: first address → [frame, pages, writable, accessed, dirty]."""

    def __init__(self, world: World, hold: Hold) -> None:
        super().__init__(world, hold)
        self.large: dict[int, list[Any]] = {}
        self.splits = self.wholes = 0

    def step(self) -> bool:
        """Takes the next message, if there is one; returns whether there was."""
        if not self.hold.outbox:
            return False
        message = self.hold.outbox[0][1]
        if isinstance(message, GrantExtent | ExtentRevocation | Age):
            position, _ = self.hold.outbox.popleft()
            assert position == self.position + 1, "a gap on the stream"
            self.position = position
            if isinstance(message, GrantExtent):
                self.take_extent(message)
            elif isinstance(message, ExtentRevocation):
                self.give_extents(message)
            else:
                self.tell(message)
            return True
        if isinstance(message, Grant | Revocation):
            named = [message.address] if isinstance(message, Grant) else message.addresses
            assert not any(self.covering(address) for address in named), "a page of an extent that was not split"
        return super().step()

    def covering(self, address: int) -> list[Any] | None:
        """Returns the large entry that an address lies in."""
        return self.large.get(address & -EXTENT)

    def take_extent(self, message: GrantExtent) -> None:
        """Installs a large entry in the place of what was there; one that is granted again stays as it is."""
        assert message.size == EXTENT and message.address % EXTENT == 0 and message.frame % 512 == 0
        old = self.large.get(message.address)
        if self.world.ram.load64(self.hold.eptp) or (old is not None and old[:3] == [message.frame, 512, True]):
            return
        for address in range(message.address, message.address + EXTENT, PAGE):
            self.table.pop(address, None)
        self.large[message.address] = [message.frame, 512, message.writable, False, False]

    def give_extents(self, message: ExtentRevocation) -> None:
        """Clears large entries, or makes pages of them; tells A and D of the whole."""
        bits = []
        for address in message.addresses:
            entry = self.large.pop(address, None)
            if entry is None:
                continue
            frame, pages, writable, accessed, dirty = entry
            bits.append(PageBits(address, accessed, dirty))
            self.splits += message.split
            self.wholes += not message.split
            if message.split:
                for page in range(pages):
                    self.table[address + page * PAGE] = [frame + page, writable, False, False]
        self.world.engine.acknowledge(self.hold, message.revocation, bits)

    def tell(self, message: Age) -> None:
        """Tells and clears A, and tells D, of pages and of whole extents by their first addresses."""
        bits = []
        for address in message.addresses:
            if address in self.large:
                entry = self.large[address]
                bits.append(PageBits(address, entry[3], entry[4]))
                entry[3] = False
            elif address in self.table:
                small = self.table[address]
                bits.append(PageBits(address, small[2], small[3]))
                small[2] = False
        self.world.engine.acknowledge(self.hold, message.sequence, bits)

    def access(self, address: int, write: bool) -> int | None:
        """Returns the physical address as the guest's core would find it; None: EPT violation."""
        entry = self.covering(address)
        if entry is None:
            return super().access(address, write)
        if write and not entry[2]:
            return None
        entry[3] = True
        entry[4] = entry[4] or write
        return int(entry[0]) * PAGE + address % EXTENT


class ExtentPlay(World):
    """A VM of 8 MiB beside a process that forks, in a group that holds less than both want."""

    def __init__(self, seed: int, limit: int = 1900, frames: int = 4096) -> None:
        super().__init__(seed, frames, 6000)
        self.run(self.engine.create_group("tight", "", {"max_bytes": limit * PAGE}, NOBODY, ""))
        self.guest = self.run(self.engine.create_space(Kind.GUEST_RAM, "tight", "vm", NOBODY, "")).handle
        self.pages = 2048
        self.run(self.engine.map_range(self.guest, MapSpec(0, self.pages * PAGE, RW, fixed=True)))
        self.words: dict[int, int] = {}
        self.readonly: set[int] = set()
        self.sequence = self.granted = self.pinned = 0
        self.others = [self.run(self.engine.create_space(Kind.PROCESS, "tight", "p", NOBODY, "")).handle]
        self.run(self.engine.map_range(self.others[0], MapSpec(0x40_0000, 256 * PAGE, RW, fixed=True)))
        self.open()

    def open(self) -> None:
        """Opens a hold with a root of its own."""
        (frame,) = self.run(self.engine.allocate_frames(1, "vm", "", NOBODY, ""))
        self.root = frame
        self.holder = LargeHolder(self, self.engine.open_hold(self.guest, frame * PAGE, "vm"))

    def serve_holders(self) -> bool:
        """Lets the holder answer."""
        return self.holder.step()

    def act(self) -> None:
        """Does one thing, with what is at work going on beside it."""
        roll = self.rng.random()
        if roll < 0.55:
            self.touch()
        elif roll < 0.75:
            if not self.turn():
                self.holder.step()
        elif roll < 0.9:
            self.holder.step()
        elif roll < 0.95:
            self.push_out()
        elif roll < 0.98:
            self.change_mapping()
        elif roll < 0.985:
            self.fork()
        elif roll < 0.99:
            self.start(self.engine.compact_frames(2), self.expect_no_error)
        elif roll < 0.993 and not self.tasks:
            self.reopen()

    def expect_no_error(self, task: Task) -> None:
        """Is called at the end of what must not fail."""
        assert task.error is None, task.error

    def touch(self) -> None:
        """Reads or writes a word through the holder's table, or wants the page, or the extent around it."""
        block = self.rng.randrange(4)
        address = block * EXTENT + self.rng.choice([0, 3, 200, 511]) * PAGE + self.rng.choice([0, 8, 4088])
        write = self.rng.random() < 0.6
        pa = self.holder.access(address, write)
        if pa is not None:
            self.check_word(pa, address, write)
            return
        if len(self.tasks) > 6:
            return
        self.sequence += 1
        hold, access = self.holder.hold, 2 if write else 1
        if self.rng.random() < 0.6:
            pin = self.rng.random() < 0.15
            self.start(self.engine.want_extent(hold, self.sequence, address, access, EXTENT, pin), self.expect_no_error)
        else:
            self.start(self.engine.want(hold, self.sequence, address, access), self.expect_no_error)
        self.granted = max(self.granted, len(self.holder.large))
        self.pinned = max(self.pinned, sum(one.pinned for one in hold.extents.values()))

    def check_word(self, pa: int, address: int, write: bool) -> None:
        """Compares a word with its oracle, or stores one in both."""
        if write:
            assert address // PAGE not in self.readonly, "a guest wrote to what it may only read"
            self.words[address] = self.rng.getrandbits(64)
            self.store64(pa, self.words[address])
        else:
            assert self.load(pa) == self.words.get(address, 0), f"word at {address:#x} in frame {pa // PAGE}"

    def push_out(self) -> None:
        """Reclaims from the VM, from the group, or reads its idle pages."""
        roll = self.rng.random()
        if roll < 0.4:
            step: Any = self.engine.reclaim(self.guest, "", self.rng.choice([1, 8, 40]))
        elif roll < 0.8:
            step = self.engine.reclaim(None, "tight", self.rng.choice([1, 16]))
        else:
            step = self.engine.read_residency(self.guest, 0, 1024 * PAGE, True)
        self.start(step, self.expect_no_error)

    def change_mapping(self) -> None:
        """Unmaps and maps anew, or protects, one page, some, or a whole block; to its end, since words go with it."""
        count = self.rng.choice([1, 5, 512, 512, 512])
        first = self.rng.randrange(0, self.pages - count + 1, count)
        start, end = first * PAGE, (first + count) * PAGE
        if self.rng.random() < 0.5:
            self.run(self.engine.unmap_range(self.guest, start, end))
            self.words = {at: word for at, word in self.words.items() if not start <= at < end}
            self.readonly -= set(range(first, first + count))
            self.run(self.engine.map_range(self.guest, MapSpec(start, end - start, RW, fixed=True)))
            return
        rights = self.rng.choice([1, RW])
        self.run(self.engine.protect_range(self.guest, start, end, rights))
        pages = set(range(first, first + count))
        self.readonly = self.readonly | pages if rights == 1 else self.readonly - pages

    def fork(self) -> None:
        """Writes in a process beside the VM and forks it, or ends a child."""
        if len(self.others) > 3:
            self.run(self.engine.delete_space(self.others.pop()))
            return
        try:
            self.run(self.engine.write_space(self.others[0], 0x40_0000, b"x" * 64 * PAGE, False))
            self.others.append(self.run(self.engine.fork_space(self.others[0], "c", "", NOBODY, "")).handle)
        except LaminaError as error:
            assert error.reason in ("NO_FREE_FRAME", "GROUP_LIMIT"), error

    def reopen(self) -> None:
        """Ends the hold and opens another."""
        self.run(self.engine.end_hold(self.holder.hold, None))
        self.engine.free_frames([self.root], "vm")
        splits, wholes = self.holder.splits, self.holder.wholes
        self.open()
        self.holder.splits, self.holder.wholes = splits, wholes

    def finish(self) -> None:
        """Lets everything end, compares all words, checks the books, ends all, and checks again."""
        self.settle()
        while self.holder.step():
            pass
        self.check()
        for address, value in sorted(self.words.items()):
            assert int.from_bytes(self.run(self.engine.read_space(self.guest, address, 8)), "little") == value
        self.check()
        for handle in (*self.others, self.guest):
            self.run(self.engine.delete_space(handle))
        self.engine.free_frames([self.root], "vm")
        self.check()
        assert self.m.frames.free == self.m.frames.count - 1 and not self.m.pinned_frames
