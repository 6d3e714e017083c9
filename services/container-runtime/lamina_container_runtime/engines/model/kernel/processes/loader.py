"""Loading a program: from an executable file to an address space, an entry point and a stack.

    0x7ffffffff000 ┌──────────────────────────┐
                   │ file name, environment   │
                   │ and argument strings     │
                   │ auxiliary vector         │
                   │ envp[], argv[]           │
                   │ argc                     │ ◀─ rsp
                   ├ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─┤    grows down, 8 MiB
                   │ mmap (top down)          │
                   │ heap (brk, upwards)      │
                   │ bss, data, text          │    as the file says; static-pie at 0x555555554000
                   └──────────────────────────┘

Segments are memory objects by (content, segment): processes of the same program share their frames until they write.
Addresses are not randomised, so that the same program has the same addresses everywhere. Source: Linux fs/binfmt_elf.c.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from lamina_container_runtime.domain import elf
from lamina_container_runtime.engines.model.effects import CreateSpace, DeleteSpace, MapRange, SpaceRef
from lamina_container_runtime.engines.model.kernel.abi import (
    MAY_EXEC,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    Errno,
)
from lamina_container_runtime.engines.model.kernel.files import credentials
from lamina_container_runtime.engines.model.kernel.files.credentials import Credentials
from lamina_container_runtime.engines.model.kernel.files.inode import FileInode
from lamina_container_runtime.engines.model.kernel.files.resolve import View, location_of, resolve
from lamina_container_runtime.engines.model.kernel.kernel import Kernel
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.memory.address_space import AddressSpace
from lamina_container_runtime.engines.model.kernel.processes.process import Container
from lamina_container_runtime.engines.model.kernel.processes.registers import HWCAP
from lamina_kit.effects import Step
from lamina_kit.errors import InvalidArgument
from lamina_kit.paging import PAGE_SIZE

STACK_TOP = 0x7FFF_FFFF_F000
STACK_BYTES = 8 << 20
MAX_ARGUMENTS = 2 << 20
"""Most bytes of arguments and environment, a quarter of the stack as Linux has it."""
MAX_SCRIPTS = 4
_SHEBANG_BYTES = 256


@dataclass(frozen=True)
class Executable:
    """What an exec runs: the ELF file behind any scripts, with the argument vector that it gets."""

    file: FileInode
    path: str
    name: str
    program: elf.Program
    argv: tuple[bytes, ...]


@dataclass(frozen=True)
class Loaded:
    """A program in memory."""

    memory: AddressSpace
    entry: int
    stack: int


def find_executable(view: View, path: str, argv: Sequence[bytes]) -> Executable:
    """Returns what `path` runs, following `#!` lines.

    Raises `Errno` (ENOENT, EACCES, ELOOP …) for what Linux refuses so, and `InvalidArgument` with an ELF_ reason for
    contents that are no program for these cores (ENOEXEC in a system call).
    """
    name = path
    words = tuple(argv)
    for _ in range(MAX_SCRIPTS + 1):
        found = resolve(view, path)
        inode = found.existing()
        if not isinstance(inode, FileInode):
            raise Errno(errno.EACCES)
        credentials.check(inode, view.who, MAY_EXEC)
        head = inode.read(0, _SHEBANG_BYTES)
        if not head.startswith(b"#!"):
            program = elf.parse(inode.read, inode.size)
            return Executable(inode, location_of(found, view.root), name, program, words)
        interpreter = _shebang(head)
        words = (*interpreter, path.encode(errors="surrogateescape"), *words[1:])
        path = interpreter[0].decode(errors="surrogateescape")
    raise Errno(errno.ELOOP)


def _shebang(head: bytes) -> tuple[bytes, ...]:
    """Returns the interpreter of a script and its argument, if it has one: the rest of the line is one argument."""
    line = head[2:].split(b"\n", 1)[0].strip(b" \t")
    parts = line.split(None, 1)
    if not parts:
        raise InvalidArgument(
            "The script names no interpreter behind #!.",
            reason="PROGRAM_NOT_EXECUTABLE",
            next_step="Write a line such as #!/bin/sh.",
        )
    return tuple(parts)


def load(
    kernel: Kernel,
    container: Container,
    executable: Executable,
    environment: Sequence[bytes],
    who: Credentials,
    label: str,
) -> Step[Loaded]:
    """Makes the address space of a program: maps its segments, its heap and its stack, and fills the stack.

    What was made is deleted again when something fails.
    """
    strings = sum(len(word) + 9 for word in (*executable.argv, *environment))
    if strings > MAX_ARGUMENTS:
        raise Errno(errno.E2BIG)
    executable.file.hold()
    try:
        return (yield from _load(kernel, container, executable, environment, who, label))
    finally:
        executable.file.let_go()


def _load(
    kernel: Kernel,
    container: Container,
    executable: Executable,
    environment: Sequence[bytes],
    who: Credentials,
    label: str,
) -> Step[Loaded]:
    space: SpaceRef = yield CreateSpace(container.memory_group, label)
    try:
        memory = AddressSpace(space, container.next_domain())
        memory.executable = executable.path
        bias = executable.program.bias
        yield from _map_segments(kernel, container, memory, executable, bias)
        stack = yield from _make_stack(kernel, memory, executable, environment, who, bias)
    except BaseException:
        yield DeleteSpace(space)
        raise
    return Loaded(memory, executable.program.entry + bias, stack)


def _map_segments(
    kernel: Kernel, container: Container, memory: AddressSpace, executable: Executable, bias: int
) -> Step[None]:
    for number, segment in enumerate(executable.program.segments):
        protection = (
            (PROT_READ if segment.readable else 0)
            | (PROT_WRITE if segment.writable else 0)
            | (PROT_EXEC if segment.executable else 0)
        )
        start, middle, end = segment.start + bias, segment.file_end + bias, segment.end + bias
        if segment.file_size:
            memory_object = yield from kernel.objects.segment(
                container, executable.file, executable.path, number, segment
            )
            yield MapRange(
                memory.space,
                start,
                middle - start,
                protection,
                fixed=True,
                replace=True,
                memory_object=memory_object,
                label=executable.path[-255:],
            )
        if end > middle:
            yield MapRange(memory.space, middle, end - middle, protection, fixed=True, replace=True, label="[bss]")
    memory.brk_start = memory.brk = memory.brk_mapped = executable.program.end + bias


def _make_stack(
    kernel: Kernel,
    memory: AddressSpace,
    executable: Executable,
    environment: Sequence[bytes],
    who: Credentials,
    bias: int,
) -> Step[int]:
    protection = PROT_READ | PROT_WRITE | (PROT_EXEC if executable.program.executable_stack else 0)
    yield MapRange(
        memory.space,
        STACK_TOP - STACK_BYTES,
        STACK_BYTES,
        protection,
        fixed=True,
        grows_down=True,
        label="[stack]",
    )
    image, stack = stack_image(executable, environment, who, bias, kernel.rng.bytes(16))
    yield from user.fill(kernel.memory, memory, stack, image)
    return stack


def stack_image(
    executable: Executable, environment: Sequence[bytes], who: Credentials, bias: int, random: bytes
) -> tuple[bytes, int]:
    """Returns the first bytes of a program's stack and the address at which they begin (16-byte aligned)."""
    name = executable.name.encode(errors="surrogateescape")
    strings = bytearray()
    offsets: list[int] = []
    for text in (*executable.argv, *environment, name, b"x86_64"):
        offsets.append(len(strings))
        strings += text + b"\0"
    strings_at = (STACK_TOP - 8 - len(strings)) & ~15
    addresses = [strings_at + offset for offset in offsets]
    count = len(executable.argv)
    random_at = strings_at - 16
    auxiliary = _auxiliary(executable.program, who, bias, random_at, addresses[-2], addresses[-1])
    table = [count, *addresses[:count], 0, *addresses[count:-2], 0]
    for key, value in auxiliary:
        table += [key, value]
    stack = (random_at - 8 * len(table)) & ~15
    body = struct.pack(f"<{len(table)}Q", *table).ljust(random_at - stack, b"\0")
    return body + random + bytes(strings), stack


def _auxiliary(
    program: elf.Program, who: Credentials, bias: int, random_at: int, name_at: int, platform_at: int
) -> list[tuple[int, int]]:
    headers = program.program_headers + bias if program.program_headers else 0
    return [
        (16, HWCAP),  # AT_HWCAP
        (6, PAGE_SIZE),
        (17, 100),  # AT_CLKTCK
        (3, headers),
        (4, 56),
        (5, program.program_header_count),
        (7, 0),  # AT_BASE: there is no interpreter
        (8, 0),
        (9, program.entry + bias),
        (11, who.uid),
        (12, who.uid),
        (13, who.gid),
        (14, who.gid),
        (23, 0),  # AT_SECURE
        (25, random_at),
        (26, 0),  # AT_HWCAP2
        (31, name_at),
        (15, platform_at),
        (51, 2048),  # AT_MINSIGSTKSZ
        (0, 0),
    ]
