"""The guest's own tables: page sizes, rights, accessed and dirty bits, translations that outlive their entry."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.contract.hardware.snippets.checks import equal
from tests.contract.hardware.snippets.places import KDATA, KERNEL, LARGE, PAGE, UDATA
from tests.contract.hardware.snippets.preparations import absent, mapped
from tests.contract.hardware.snippets.snippet import AC, Snippet

P, RW, US, A, D, PS, G, NX = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
CR4 = 0x620
SMEP, SMAP, PGE = 1 << 20, 1 << 21, 1 << 7
TWO_MIB, ONE_GIB = 1 << 21, 1 << 30


def large(level: int, offset: int) -> Any:
    """Returns what maps LARGE by one large page, of which only the frame at `offset` is backed."""

    def prepare(machine: Any) -> None:
        size = 1 << (3 + 9 * level)
        base = ONE_GIB if level == 3 else 64 * TWO_MIB
        machine.guest.back(base + offset)
        machine.guest.tables.map(LARGE, base, P | RW | PS, level)
        assert offset < size
        machine.store(KDATA, base + offset)

    return prepare


def large_bits(level: int, wanted: int) -> Any:
    """Returns the check of accessed and dirty in the entry of LARGE."""
    return lambda seen: equal(seen.machine.entry(LARGE, level) & (A | D), wanted)


def bits(va: int, wanted: int) -> Any:
    """Returns the check of accessed and dirty in the entry of a page."""
    return lambda seen: equal(hex(seen.machine.entry(va) & (A | D)), hex(wanted))


def two_frames(machine: Any) -> None:
    """PAGE is a frame of 0x11; R12 points to its entry, R13 maps it to a frame of 0x22 instead."""
    first, second = machine.map(PAGE), machine.guest.gpa_frames()
    machine.bench.bus.write(machine.guest.host_of(first), b"\x11" * 4096)
    machine.bench.bus.write(machine.guest.host_of(second), b"\x22" * 4096)
    machine.page.r12, machine.page.r13 = machine.window(PAGE), second | P | RW


def global_page(machine: Any) -> None:
    """As `two_frames`, with G in both entries."""
    two_frames(machine)
    machine.guest.tables.map(PAGE, machine.guest.kernel[PAGE], P | RW | G)
    machine.page.r13 |= G


def read_only_above(machine: Any) -> None:
    """PAGE is writable, the entry above it is not."""
    machine.map(PAGE, P | RW)
    place = machine.guest.tables.entry(PAGE, 2)
    machine.bench.bus.store64(place, machine.bench.bus.load64(place) & ~RW)


def other_tables(machine: Any) -> None:
    """R12 is a second root, equal but for PAGE: 0x11 here, 0x22 there."""
    two_frames(machine)
    bus, guest = machine.bench.bus, machine.guest
    copy = []
    table = guest.tables.root
    for level in (4, 3, 2, 1):  # a copy of the way to PAGE, the rest is shared
        fresh = guest.gpa_frames()
        bus.write(guest.host_of(fresh), bus.read(guest.host_of(table), 4096))
        copy.append(fresh)
        table = guest.entry(PAGE, level) & 0xF_FFFF_FFFF_F000
    for level, (above, below) in zip((4, 3, 2), pairwise(copy), strict=True):
        bus.store64(guest.host_of(above) + (PAGE >> (3 + 9 * level) & 511) * 8, below | P | RW | US)
    bus.store64(guest.host_of(copy[3]) + (PAGE >> 12 & 511) * 8, machine.page.r13)
    machine.page.r12 = copy[0]


def two_pages(machine: Any) -> None:
    """PAGE and the page behind it are mapped."""
    machine.map(PAGE)
    machine.map(PAGE + 0x1000)


def alias(machine: Any) -> None:
    """PAGE and the page behind it are one frame."""
    machine.map(PAGE + 0x1000, gpa=machine.map(PAGE))


SNIPPETS = (
    Snippet(
        "read_sets_accessed",
        "A read sets A in the entry, and not D.",
        """
        mov rdi, PAGE
        mov rax, [rdi]
        hlt
        """,
        prepare=mapped(),
        check=bits(PAGE, A),
    ),
    Snippet(
        "write_sets_dirty",
        "A write after a read sets D as well.",
        """
        mov rdi, PAGE
        mov rax, [rdi]
        mov [rdi], rax
        hlt
        """,
        prepare=mapped(),
        check=bits(PAGE, A | D),
    ),
    Snippet(
        "unused_page",
        "An entry that no access used keeps A and D clear; LEA, PREFETCH and INVLPG are none.",
        """
        mov rdi, PAGE
        lea rax, [rdi+8]
        invlpg [rdi]
        hlt
        """,
        prepare=mapped(),
        check=bits(PAGE, 0),
    ),
    Snippet(
        "refused_write_sets_nothing",
        "A write that the entry refuses leaves D clear.",
        """
        mov rdi, PAGE
        lea r15, [rip+handled]
    fault:
        mov [rdi], rax
    handled:
        hlt
        """,
        prepare=mapped(P),
        faults=((14, 3, "fault", PAGE),),
        check=lambda seen: equal(seen.machine.entry(PAGE) & D, 0),
    ),
    Snippet(
        "page_of_2_mib",
        "A page of 2 MiB has its A and D in the page-directory entry.",
        """
        mov rdi, LARGE+0x123008
        mov qword ptr [rdi], 0x5a5a
        mov rax, [rdi]
        hlt
        """,
        prepare=large(2, 0x123000),
        registers={"rax": 0x5A5A},
        check=large_bits(2, A | D),
    ),
    Snippet(
        "page_of_1_gib",
        "A page of 1 GiB is mapped by one entry of the third level.",
        """
        mov rdi, LARGE+0x12345008
        mov rax, [rdi]
        hlt
        """,
        prepare=large(3, 0x1234_5000),
        registers={"rax": 0},
        check=large_bits(3, A),
    ),
    Snippet(
        "rights_of_the_way",
        "A writable page below a read-only directory entry cannot be written.",
        """
        mov rdi, PAGE
    fault:
        mov [rdi], rax
        hlt
        """,
        prepare=read_only_above,
        faults=((14, 3, "fault", PAGE),),
    ),
    Snippet(
        "stale_until_invlpg",
        "After an entry changed, INVLPG makes the next access see the new frame.",
        """
        mov rdi, PAGE
        mov eax, [rdi]
        mov [r12], r13
        invlpg [rdi]
        mov ebx, [rdi]
        hlt
        """,
        prepare=two_frames,
        registers={"rax": 0x1111_1111, "rbx": 0x2222_2222},
    ),
    Snippet(
        "stale_until_cr3",
        "After an entry changed, loading CR3 makes the next access see the new frame.",
        """
        mov rdi, PAGE
        mov eax, [rdi]
        mov [r12], r13
        mov rcx, cr3
        mov cr3, rcx
        mov ebx, [rdi]
        hlt
        """,
        prepare=two_frames,
        registers={"rax": 0x1111_1111, "rbx": 0x2222_2222},
    ),
    Snippet(
        "global_until_pge",
        "A global translation is dropped by clearing CR4.PGE.",
        """
        mov rdi, PAGE
        mov eax, [rdi]
        mov [r12], r13
        mov rcx, cr4
        xor rcx, 0x80
        mov cr4, rcx
        mov ebx, [rdi]
        hlt
        """,
        prepare=global_page,
        start={"cr4": CR4 | PGE},
        registers={"rax": 0x1111_1111, "rbx": 0x2222_2222, "cr4": CR4},
    ),
    Snippet(
        "entry_changed_before_use",
        "An entry that was not present is never cached: made present, the access succeeds without INVLPG.",
        """
        mov rdi, PAGE+0x10
        mov r14, r12
        mov r15d, 2
    fault:
        mov rax, [rdi]
        hlt
        """,
        prepare=absent,
        registers={"rax": 0x99},
        faults=((14, 0, "fault", PAGE + 0x10),),
    ),
    Snippet(
        "another_root",
        "MOV CR3 changes what an address means.",
        """
        mov rdi, PAGE
        mov eax, [rdi]
        mov cr3, r12
        mov ebx, [rdi]
        hlt
        """,
        prepare=other_tables,
        registers={"rax": 0x1111_1111, "rbx": 0x2222_2222},
    ),
    Snippet(
        "alias",
        "Two addresses of one frame show the same bytes, and each entry has its own A and D.",
        """
        mov rdi, PAGE
        mov qword ptr [rdi], 0x77
        mov rax, [rdi+0x1000]
        hlt
        """,
        prepare=alias,
        registers={"rax": 0x77},
        check=lambda seen: equal((seen.machine.entry(PAGE) & D, seen.machine.entry(PAGE + 0x1000) & (A | D)), (D, A)),
    ),
    Snippet(
        "store_across_two_pages",
        "A store across two pages sets A and D in both entries.",
        """
        mov rdi, PAGE+0xffc
        mov rax, 0x1122334455667788
        mov [rdi], rax
        mov rbx, [rdi]
        hlt
        """,
        prepare=two_pages,
        registers={"rbx": 0x1122_3344_5566_7788},
        check=lambda seen: equal([seen.machine.entry(PAGE + at) & (A | D) for at in (0, 0x1000)], [A | D, A | D]),
    ),
    Snippet(
        "smep",
        "With CR4.SMEP the kernel's fetch from a user page is #PF(P|I).",
        """
        mov rax, UTEXT
        jmp rax
        """,
        start={"cr4": CR4 | SMEP},
        faults=((14, 0x11, None, 0x40_0000),),
    ),
    Snippet(
        "kernel_runs_user_page",
        "Without SMEP the kernel may execute a user page.",
        """
        mov rax, UTEXT
        call rax
        hlt
        """,
        user="mov ebx, 3\nret",
        registers={"rbx": 3},
    ),
    Snippet(
        "smap",
        "With CR4.SMAP the kernel's read of a user page is #PF(P) unless AC is set.",
        """
        mov rdi, UDATA
        stac
        mov rax, [rdi]
        clac
    fault:
        mov rbx, [rdi]
        hlt
        """,
        start={"cr4": CR4 | SMAP},
        clear=AC,
        faults=((14, 1, "fault", UDATA),),
        needs=("smap",),
    ),
    Snippet(
        "tables_as_data",
        "The guest sees in memory the bits that its own accesses set.",
        """
        mov rdi, PAGE
        mov rbx, [r12]
        mov [rdi], rax
        mov rcx, [r12]
        xor rcx, rbx
        hlt
        """,
        prepare=two_frames,
        registers={"rcx": A | D},
    ),
    Snippet(
        "dirty_cleared",
        "After D was cleared and the translation dropped, the next write sets it again.",
        """
        mov rdi, PAGE
        mov [rdi], rax
        and qword ptr [r12], ~0x60
        invlpg [rdi]
        mov rbx, [r12]
        mov [rdi], rax
        mov rcx, [r12]
        xor rcx, rbx
        hlt
        """,
        prepare=two_frames,
        registers={"rcx": A | D},
    ),
    Snippet(
        "code_is_accessed",
        "Execution sets A in the entry of its page, and the kernel's own text is not dirty.",
        "hlt",
        check=bits(KERNEL, A),
    ),
)
