"""Bytes that must not change by accident: images as built, stacks as programs find them, texts of /proc."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from lamina_cli.guests.oci import Config, File, build_image
from lamina_container_runtime.domain.elf import Program, Segment
from lamina_container_runtime.engines.model.kernel.files.credentials import Credentials
from lamina_container_runtime.engines.model.kernel.files.inode import FileInode, FileSystem
from lamina_container_runtime.engines.model.kernel.processes.loader import Executable, stack_image
from lamina_container_runtime.engines.model.kernel.processes.registers import start, user_cpuid
from lamina_kit.bus.run_page import GPR_NAMES, SEGMENT_NAMES, RunPage

FOLDER = Path(__file__).parent


def test_an_image_is_the_same_bytes_everywhere(golden: object) -> None:
    """The same files and configuration give the same archive."""
    files = [File("bin/app", b"\x7fELF", mode=0o755), File("link", kind="symlink", target="bin/app")]
    config = Config(entrypoint=("/bin/app",), labels=(("a", "1"),), stop_signal="SIGINT")
    lower = [[File("base", b"b")]]
    archive = build_image(files, config, reference="app:1", lower_layers=lower)
    assert archive == build_image(files, config, reference="app:1", lower_layers=lower)
    zipped = [build_image(files, config, compress=True) for _ in range(2)]
    assert zipped[0] == zipped[1] != archive
    golden(f"{len(archive)} {hashlib.sha256(archive).hexdigest()}\n", FOLDER / "image.txt")  # type: ignore[operator]


def test_a_stack_is_what_programs_expect(golden: object) -> None:
    """argc, argv, envp, the auxiliary vector and the strings lie where the ABI says."""
    segment = Segment(0, 0x400000, 0x1000, 0x1000, True, False, True)
    program = Program(0x400100, False, (segment,), 0x400040, 2, False)
    file = FileInode(FileSystem("overlay", 1, lambda: 0), 0o755)
    executable = Executable(file, "/bin/app", "app", program, (b"app", b"two words"))
    image, address = stack_image(executable, [b"HOME=/root"], Credentials(1000, 100), 0, bytes(range(16)))
    words = struct.unpack_from(f"<{len(image) // 8}Q", image)
    text = "".join(f"{address + 8 * n:#x}  {word:#018x}\n" for n, word in enumerate(words))
    assert address % 16 == 0
    golden(text + repr(image[-48:]) + "\n", FOLDER / "stack.txt")  # type: ignore[operator]


def test_a_program_begins_with_these_registers(golden: object) -> None:
    """The run page of a program about to begin, and what CPUID tells it."""
    page = RunPage(memoryview(bytearray(4096)))
    start(page, 0x1000, 0x400100, 0x7FFF_FFFF_E000)
    assert (page.rip, page.rsp, page.cr3) == (0x400100, 0x7FFF_FFFF_E000, 0x1000)
    lines = [f"{name} {page.gpr[number]:#x}" for number, name in enumerate(GPR_NAMES)]
    lines += [f"{name} {getattr(page, name):#x}" for name in ("rip", "rflags", "cpl", "cr0", "cr3", "cr4", "efer")]
    lines += [f"{name} {page.segment(name)}" for name in SEGMENT_NAMES]
    lines += [str(entry) for entry in user_cpuid()]
    golden("\n".join(lines) + "\n", FOLDER / "registers.txt")  # type: ignore[operator]
