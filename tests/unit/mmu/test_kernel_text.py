"""What the kernel says in text and in words, read; and the agent's program, against its source."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from lamina_mmu.domain.frames.table import Use
from lamina_mmu.domain.kernel.faults import Evidence, judge
from lamina_mmu.domain.kernel.maps import Faults, at, hole, parse, parse_faults, parse_sizes, within
from lamina_mmu.domain.kernel.pages import EXCLUSIVE, IN_RAM, IN_SWAP, frame_of, is_shared, slot_of, use_of
from lamina_mmu.domain.kernel.port import Reply
from lamina_mmu.domain.outcome import Outcome
from lamina_mmu.domain.spaces.labels import Labels
from lamina_mmu.domain.tables.entry import READ, WRITE
from lamina_mmu.io.linux import program

SMAPS = """\
00400000-00402000 rw-s 00001000 00:01 2132      /memfd:lamina object: (deleted)
Size:                  8 kB
Rss:                   4 kB
Swap:                  4 kB
VmFlags: rd wr sh mr mw me ms lo
00403000-00404000 r-xp 00000000 00:00 0 
Rss:                   0 kB
VmFlags: rd ex
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Rss:                   0 kB
"""


def test_regions_are_read_from_smaps() -> None:
    """Ranges, rights, sizes and flags are those of the text; what lies in the upper half is left out."""
    first, second = parse(SMAPS)
    assert (first.start, first.end, first.rights, first.shared) == (0x40_0000, 0x40_2000, READ | WRITE, True)
    assert (first.offset, first.inode, first.path) == (0x1000, 2132, "/memfd:lamina object: (deleted)")
    assert (first.resident, first.swapped, "lo" in first.flags) == (1, 1, True)
    assert (second.inode, second.path, second.resident) == (0, "", 0)
    assert parse("") == []


def test_ranges_are_looked_up_in_regions() -> None:
    """The region of an address, those of a range, and the first address that none covers."""
    found = parse(SMAPS)
    assert at(found, 0x40_1FFF) is found[0] and at(found, 0x40_2000) is None
    assert within(found, 0x40_1000, 0x40_4000) == found
    assert hole(found, 0x40_0000, 0x40_2000) is None
    assert hole(found, 0x40_0000, 0x40_4000) == 0x40_2000
    assert hole(found, 0x40_3000, 0x40_5000) == 0x40_4000


def test_counters_are_read_whatever_a_process_is_called() -> None:
    """A name with blanks, parentheses and numbers does not move the fields of stat."""
    line = "17 (a) 1 (2 b) S 1 17 17 0 -1 4194304 101 5 3 2 0 0 0 0 20 0 1 0 77"
    assert parse_faults(line) == Faults(101, 3)
    assert parse_sizes("VmRSS:\t  12 kB\nName:\tx\npgfault 7\n") == {"VmRSS": 12, "pgfault": 7}


def test_words_of_the_page_map_are_decoded() -> None:
    """A frame only of a page in RAM, a slot only of one in swap, sharing only without the mark of being alone."""
    assert frame_of(IN_RAM | 4711) == 4711 and slot_of(IN_RAM | 4711) == -1
    assert slot_of(IN_SWAP | 9 << 5 | 2) == 9 and frame_of(IN_SWAP | 9 << 5) == 0
    assert is_shared(IN_RAM | 1) and not is_shared(IN_RAM | EXCLUSIVE | 1) and not is_shared(0)
    flags = {1 << 10: Use.FREE, 1 << 12: Use.ANONYMOUS, 1 << 5: Use.OBJECT, 1 << 26: Use.TABLE, 1 << 19: Use.OFFLINE}
    assert {use_of(word): use for word, use in flags.items()} == {use: use for use in flags.values()}
    assert use_of(1 << 7) == Use.ALLOCATED and use_of(1 << 32) == Use.RESERVED


@pytest.mark.parametrize(
    ("evidence", "outcome"),
    [
        (Evidence(Reply(0), None, 0, IN_RAM | 5, 1, 0), Outcome.ZERO_FILLED),
        (Evidence(Reply(0), None, IN_RAM | 5, IN_RAM | 5, 0, 0), Outcome.SPURIOUS),
        (Evidence(Reply(0), None, IN_RAM | 5, IN_RAM | 6, 1, 0), Outcome.COPIED),
        (Evidence(Reply(0), None, IN_RAM | 5, IN_RAM | 6, 1, 0, True), Outcome.ZERO_FILLED),
        (Evidence(Reply(0), None, IN_SWAP | 32, IN_RAM | 6, 0, 1), Outcome.SWAPPED_IN),
        (Evidence(Reply(0), parse(SMAPS)[0], 0, IN_RAM | 6, 1, 0), Outcome.OBJECT_MAPPED),
        (Evidence(Reply(-14, 11), None, 0, 0, 0, 0), Outcome.SEGMENTATION_FAULT),
        (Evidence(Reply(-14, 7, 2), None, 0, 0, 0, 0), Outcome.BUS_ERROR),
    ],
)
def test_faults_are_judged_by_what_the_kernel_tells(evidence: Evidence, outcome: Outcome) -> None:
    """Counters, page map and signal decide."""
    assert judge(evidence, WRITE).outcome == outcome


def test_memory_that_failed_is_told_from_an_end_of_an_object() -> None:
    """The code of a SIGBUS says which."""
    assert judge(Evidence(Reply(-14, 7, 4), None, 0, 0, 0, 0), READ).refusal_reason == "PAGE_LOST"
    assert judge(Evidence(Reply(-14, 7, 2), None, 0, 0, 0, 0), READ).refusal_reason == "BEYOND_OBJECT"


def test_labels_are_cut_and_moved_with_their_ranges() -> None:
    """A range that is labelled anew, unlabelled or moved keeps what lies beside it."""
    labels = Labels()
    labels.put(0, 10, "a")
    labels.put(4, 6, "b")
    assert [labels.at(address) for address in (0, 3, 4, 5, 6, 9, 10)] == ["a", "a", "b", "b", "a", "a", ""]
    labels.move(3, 7, 100)
    assert [labels.at(address) for address in (2, 3, 6, 7, 100, 101, 103, 104)] == ["a", "", "", "a", "a", "b", "a", ""]
    other = labels.copy()
    other.put(0, 200, "")
    assert other.at(2) == "" and labels.at(2) == "a"


def test_the_agents_file_is_an_elf_program() -> None:
    """Two segments that do not overlap, the code at its entry."""
    image = program.program()
    assert image.startswith(b"\x7fELF\2\1\1")
    (entry,) = struct.unpack_from("<Q", image, 24)
    assert image[entry - program.BASE :] == program.CODE
    assert entry + len(program.CODE) <= program.DATA < program.END


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("objcopy")), reason="no assembler here")
def test_the_agents_bytes_are_its_source(tmp_path: Path) -> None:
    """Assembling agent.S gives the bytes that are run, and the handler of signals is where they say."""
    source = Path(program.__file__).with_name("agent.S")
    subprocess.run(["as", source, "-o", tmp_path / "agent.o"], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", tmp_path / "agent.o", tmp_path / "agent.bin"], check=True)
    assert (tmp_path / "agent.bin").read_bytes() == program.CODE
    symbols = subprocess.run(["nm", tmp_path / "agent.o"], check=True, capture_output=True, text=True).stdout
    caught = next(int(line.split()[0], 16) for line in symbols.splitlines() if line.endswith(" caught"))
    assert program.BASE + program.HEADERS + caught == program.CAUGHT
