"""The EPT against a dictionary, and a hold against an oracle, under random sequences of events."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_hypervisor.domain.memory.addresses import Frame, Gpa
from lamina_hypervisor.domain.memory.ept import Ept
from lamina_hypervisor.domain.memory.hold import Granted, Holder
from lamina_kit.paging import ADDR_MASK, EPT_A, EPT_D, EPT_R, EPT_W, EPT_X

PAGES = [Gpa(page << 12) for page in (0, 1, 5, 511, 512, 513, 1 << 18, (1 << 18) + 1, 1 << 27, (1 << 36) - 1)]
"""Guest pages that share all, some or no tables with one another."""


class DictRam:
    """Host RAM as words in a dictionary."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}

    def load64(self, pa: int) -> int:
        return self.words.get(pa, 0)

    def cas64(self, pa: int, expected: int, new: int) -> int:
        found = self.words.get(pa, 0)
        if found == expected:
            self.words[pa] = new
        return found


@dataclass
class Page:
    """What the oracle knows of a mapped page."""

    frame: int
    writable: bool
    executable: bool
    accessed: bool = False
    dirty: bool = False


@dataclass
class Model:
    """An EPT as a dictionary, with the real one beside it."""

    ram: DictRam = field(default_factory=DictRam)
    pages: dict[Gpa, Page] = field(default_factory=dict)
    next_frame: int = 1

    def __post_init__(self) -> None:
        self.ept = Ept(self.ram, Frame(self.frame()))

    def frame(self) -> int:
        self.next_frame += 1
        return self.next_frame

    def install(self, gpa: Gpa, writable: bool, executable: bool) -> None:
        page = self.pages.get(gpa)
        frame = page.frame if page else self.frame()
        self.ept.add_tables([Frame(self.frame()) for _ in range(self.ept.tables_lacking(gpa))])
        self.ept.install(gpa, Frame(frame), writable=writable, executable=executable)
        if page is None:
            self.pages[gpa] = Page(frame, writable, executable)
        else:
            page.writable |= writable
            page.executable |= executable

    def touch(self, gpa: Gpa, write: bool) -> None:
        """Does what a core does: sets A, and D for a write that is allowed."""
        page = self.pages.get(gpa)
        if page is None or (write and not page.writable):
            return
        leaf = self.ept.walk(gpa)[-1]
        self.ram.words[leaf.address] = leaf.entry | EPT_A | (EPT_D if write else 0)
        page.accessed = True
        page.dirty |= write

    def revoke(self, gpa: Gpa, write_only: bool) -> None:
        bits = self.ept.revoke(gpa, write_only=write_only)
        page = self.pages.get(gpa)
        assert (bits is None) == (page is None)
        if page is None or bits is None:
            return
        assert (bits.accessed, bits.dirty) == (page.accessed, page.dirty)
        if write_only:
            page.writable = page.dirty = page.accessed = False
        else:
            del self.pages[gpa]

    def age(self) -> None:
        expected = [(gpa, page.accessed, page.dirty) for gpa, page in sorted(self.pages.items())]
        assert [(bits.gpa, bits.accessed, bits.dirty) for bits in self.ept.take_ages(PAGES)] == expected
        for page in self.pages.values():
            page.accessed = False

    def check(self) -> None:
        assert self.ept.mapped == len(self.pages)
        for gpa in PAGES:
            page = self.pages.get(gpa)
            entry = self.ept.entry(gpa)
            if page is None:
                assert not entry & EPT_R
                continue
            assert (entry & ADDR_MASK) >> 12 == page.frame
            assert bool(entry & EPT_W) == page.writable
            assert bool(entry & EPT_X) == page.executable
            assert self.ept.translate(Gpa(gpa + 0x123)) == (page.frame << 12) + 0x123
        assert [gpa for gpa, _ in self.ept.pages(Gpa(0))] == sorted(self.pages)


actions = st.one_of(
    st.tuples(st.just("install"), st.sampled_from(PAGES), st.booleans(), st.booleans()),
    st.tuples(st.just("touch"), st.sampled_from(PAGES), st.booleans()),
    st.tuples(st.just("revoke"), st.sampled_from(PAGES), st.booleans()),
    st.tuples(st.just("age")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(actions, max_size=40))
def test_the_table_in_ram_behaves_as_a_dictionary(sequence: list[tuple[object, ...]]) -> None:
    """Installing, touching, revoking and ageing leave in RAM what a dictionary of pages says."""
    model = Model()
    for name, *arguments in sequence:
        getattr(model, str(name))(*arguments)
        model.check()


class Mmu:
    """The memory layer's end of a hold, as an oracle: which frame it has granted for which page, now."""

    def __init__(self) -> None:
        self.granted: dict[Gpa, int] = {}
        self.free = list(range(100, 140))
        self.tables = iter(range(1000, 9000))


hold_events = st.lists(
    st.tuples(st.sampled_from(["grant", "revoke", "tables", "settle"]), st.sampled_from(PAGES)), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(hold_events)
def test_no_frame_is_mapped_that_is_not_granted(events: list[tuple[str, Gpa]]) -> None:
    """However grants, revocations and the arrival of tables interleave, the EPT maps only what is granted now."""
    mmu = Mmu()  # a frame that was taken back is the next one granted: a stale grant would make two pages share it
    holder = Holder(Ept(DictRam(), Frame(1)))
    position = 0
    for name, gpa in events:
        if name == "grant" and gpa not in mmu.granted and mmu.free:
            position += 1
            mmu.granted[gpa] = mmu.free.pop(0)
            holder.granted(position, Granted(1, gpa, Frame(mmu.granted[gpa]), True, True))
        elif name == "revoke" and gpa in mmu.granted:
            position += 1
            holder.revoked(position, [gpa], write_only=False)
            mmu.free.insert(0, mmu.granted.pop(gpa))
        elif name == "tables":
            holder.ept.add_tables([Frame(next(mmu.tables))])
        elif name == "settle":
            holder.settle([Frame(next(mmu.tables)) for _ in range(holder.tables_lacking())])
        mapped = {page: (entry & ADDR_MASK) >> 12 for page, entry in holder.ept.pages(Gpa(0))}
        assert mapped.items() <= mmu.granted.items()
        assert len(set(mapped.values())) == len(mapped)
    while holder.waiting:
        holder.settle([Frame(next(mmu.tables)) for _ in range(holder.tables_lacking())])
    assert {page: (entry & ADDR_MASK) >> 12 for page, entry in holder.ept.pages(Gpa(0))} == mmu.granted
