"""The machine code of a bus: its bytes against its listing, and machines that do not run it."""

from __future__ import annotations

import inspect
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llvmlite import binding as llvm

from lamina_kit.bus import atomics, machine_code
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.paging import PAGE_SIZE

LINE = re.compile(r'^    "([0-9a-f]+)" +# +([0-9a-f]+): (.+)$', re.MULTILINE)
"""A line of the listing: bytes, offset, assembly."""
JUMP = re.compile(r"^(j[a-z]+|call) ([0-9a-f]+)$")
FRAMES = 4100
"""More than the ring of executed frames holds."""

is_x86 = platform.machine() == "x86_64" and sys.maxsize > 1 << 32
needs_x86 = pytest.mark.skipif(not is_x86, reason="this processor runs no x86-64 code")


@pytest.fixture
def unloaded() -> Iterator[None]:
    """Forgets what was loaded, before and after: a test may say that the machine is another."""
    machine_code.loaded.cache_clear()
    yield
    machine_code.loaded.cache_clear()


def to_label(assembly: str) -> str:
    """Returns an instruction with the offset that it jumps to as a label."""
    return JUMP.sub(r"\1 L\2", assembly)


def assembled(assembly: str) -> bytes:
    """Returns the machine code that LLVM makes of assembly."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    lines = "\n".join(f'module asm "{line}"' for line in assembly.splitlines())
    module = llvm.parse_assembly(f'target triple = "x86_64-unknown-linux-gnu"\n{lines}')
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine()
    sections = llvm.ObjectFileRef.from_data(machine.emit_object(module)).sections()
    return next(bytes(section.data()) for section in sections if section.name() == b".text")


@needs_x86
def test_the_bytes_are_those_of_the_listing() -> None:
    """Every line stands at its offset, and its assembly, with jumps to those offsets, is its bytes."""
    lines = LINE.findall(inspect.getsource(machine_code))
    assert len(lines) == 86 and "".join(code for code, _, _ in lines) == machine_code._CODE.hex()
    at = 0
    for code, offset, _ in lines:
        assert int(offset, 16) == at
        at += len(code) // 2
    source = "\n".join(f"L{offset}: {to_label(assembly)}" for _, offset, assembly in lines)
    assert assembled(source).hex() == machine_code._CODE.hex()


def test_code_cannot_be_written() -> None:
    """Its memory is read and run, never written and run."""
    code = machine_code.loaded()
    if code is None:
        pytest.skip("this machine runs no machine code of ours")
    address = machine_code._placed(b"\xc3")
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if address is not None and first <= address < last:
            assert line.split()[1] == "r-xp"
            return
    pytest.fail("the code is nowhere")


def written(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[object]]:
    """Returns the bytes and the answers of a bus after marks, swaps, pins and a ring that is too small."""
    with monkeypatch.context() as changed, MemoryBus.create(path, FRAMES * PAGE_SIZE, run_pages=0) as bus:
        changed.delitem(sys.modules, atomics.__name__)  # as in a process that has not needed numba yet
        assert bus._few_atomics is (machine_code.loaded() or atomics)
        answers: list[object] = [bus.cas64(8, 0, 2**64 - 1), bus.cas64(8, 0, 5)]
        bus.write(PAGE_SIZE - 1, b"ab")
        for frame in range(1, FRAMES):
            bus.set_exec(frame)
            bus.note_write(frame)
        bus.pin(2)
        bus.pin(3)
        bus.unpin(3)
        answers += [bus.pins(2), bus.pins(3), bus.has_code_writes]
    return path.read_bytes(), answers


@pytest.mark.parametrize(
    ("where", "name", "instead"),
    [(platform, "machine", lambda: "aarch64"), (machine_code, "_placed", lambda code: None)],
    ids=["another processor", "no new code"],
)
def test_a_bus_is_the_same_without_the_code(
    where: Any, name: str, instead: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unloaded: None
) -> None:
    """On another processor, and where memory may not become code: the same bytes and answers, by numba."""
    ours = written(tmp_path / "ours", monkeypatch)
    machine_code.loaded.cache_clear()
    monkeypatch.setattr(where, name, instead)
    assert machine_code.loaded() is None
    assert written(tmp_path / "theirs", monkeypatch) == ours


REFUSED = """
import ctypes, sys
libc = ctypes.CDLL(None)
if libc.prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    sys.exit("this kernel refuses nobody")
from lamina_kit.bus import machine_code
print(machine_code.loaded())
"""


@needs_x86
def test_a_kernel_that_refuses_new_code_is_no_error() -> None:
    """A process in which memory never becomes code has no operations here, and goes on."""
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60)
    if "refuses nobody" in done.stderr:
        pytest.skip("this kernel has no memory-deny-write-execute (Linux 6.3)")
    assert (done.returncode, done.stdout.strip()) == (0, "None")


@pytest.mark.parametrize("bad", [-1, 1 << 64])
def test_words_that_do_not_fit_are_refused(tmp_path: Path, bad: int) -> None:
    """Neither is cut to 64 bits, and what is there stays."""
    code = machine_code.loaded()
    if code is None:
        pytest.skip("this machine runs no machine code of ours")
    with MemoryBus.create(tmp_path / "ram", PAGE_SIZE, run_pages=0) as bus:
        for words in ((bad, 0), (0, bad)):
            with pytest.raises(OverflowError):
                code.swap64(bus.base, *words)
        assert bus.load64(0) == 0 and not bus.state(0)
