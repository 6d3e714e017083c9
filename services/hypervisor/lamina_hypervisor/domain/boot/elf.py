"""Reads a kernel image: a static ELF64 executable for x86-64. Untrusted bytes: every number is bounded first. Pure.

    header  64 bytes   magic, class, machine, entry, where the program headers are
    program headers    56 bytes each; those of type LOAD say: file bytes [offset, offset + file size) go to the physical
                       address, followed by zeros up to the memory size

Source: System V ABI, chapters 4 and 5 (object files, program loading).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from lamina_hypervisor.domain.memory.addresses import Gpa, Gva
from lamina_kit.errors import InvalidArgument

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_MAGIC = b"\x7fELF\x02\x01\x01"
_EXECUTABLE, _X86_64, _LOAD, _INTERPRETER = 2, 62, 1, 3
MAX_SEGMENTS = 64
"""Most program headers that are read."""


@dataclass(frozen=True)
class LoadSegment:
    """Bytes that go to a guest physical address; what is beyond them up to `memory_bytes` stays zero."""

    gpa: Gpa
    data: bytes
    memory_bytes: int

    @property
    def end(self) -> Gpa:
        """Address behind the last byte."""
        return Gpa(self.gpa + self.memory_bytes)


@dataclass(frozen=True)
class Kernel:
    """A kernel that can be loaded: its entry point and its segments by address."""

    entry: Gva
    segments: tuple[LoadSegment, ...]

    @property
    def start(self) -> Gpa:
        """Lowest address of a segment."""
        return self.segments[0].gpa

    @property
    def end(self) -> Gpa:
        """Address behind the highest byte of a segment."""
        return self.segments[-1].end


def parse_kernel(image: bytes) -> Kernel:
    """Returns the kernel in `image`; what is not one is `InvalidArgument` `KERNEL_MALFORMED` with the cause."""
    if len(image) < _HEADER.size:
        raise _malformed(f"it has {len(image)} bytes, fewer than an ELF header")
    ident, kind, machine, _, entry, at, _, _, _, size, count, *_ = _HEADER.unpack_from(image)
    if ident[:4] != _MAGIC[:4]:
        raise _malformed(f"it starts with {ident[:4]!r}, not with the mark of ELF")
    if ident[:7] != _MAGIC or machine != _X86_64:
        raise _malformed(f"it is for machine {machine}, class {ident[4]}, not for 64-bit x86-64 (machine 62, class 2)")
    if kind != _EXECUTABLE:
        raise _malformed(f"it is of type {kind}, not a static executable (type 2)")
    if size != _PROGRAM.size or not 0 < count <= MAX_SEGMENTS or at > len(image) - size * count:
        raise _malformed(f"its table of {count} program headers of {size} bytes at {at:#x} is not possible")
    segments = _load_segments(image, at, count)
    return _checked(Gva(entry), segments)


def check_fits(kernel: Kernel, lowest: Gpa, memory_bytes: int) -> None:
    """Wants all segments within [lowest, memory_bytes); otherwise `InvalidArgument` `KERNEL_MALFORMED`."""
    for segment in kernel.segments:
        if segment.gpa < lowest or segment.end > memory_bytes:
            raise _malformed(
                f"its segment {segment.gpa:#x} to {segment.end:#x} is not within {lowest:#x} to {memory_bytes:#x}, "
                "where this VM takes kernels"
            )


def _load_segments(image: bytes, at: int, count: int) -> list[LoadSegment]:
    segments = []
    for number in range(count):
        kind, _, offset, _, gpa, file_bytes, memory_bytes, _ = _PROGRAM.unpack_from(image, at + number * _PROGRAM.size)
        if kind == _INTERPRETER:
            raise _malformed("it asks for an interpreter, which a kernel cannot have")
        if kind != _LOAD or memory_bytes == 0:
            continue
        if offset > len(image) or file_bytes > len(image) - offset:
            raise _malformed(f"segment {number} ends behind the end of the file: it is truncated")
        if file_bytes > memory_bytes or gpa + memory_bytes > 1 << 48:
            raise _malformed(f"segment {number} of {memory_bytes:#x} bytes at {gpa:#x} is not possible")
        segments.append(LoadSegment(Gpa(gpa), image[offset : offset + file_bytes], memory_bytes))
    return sorted(segments, key=lambda segment: segment.gpa)


def _checked(entry: Gva, segments: list[LoadSegment]) -> Kernel:
    if not segments:
        raise _malformed("it has nothing to load")
    for before, after in pairwise(segments):
        if before.end > after.gpa:
            raise _malformed(f"its segments at {before.gpa:#x} and {after.gpa:#x} overlap")
    if not any(segment.gpa <= entry < segment.end for segment in segments):
        raise _malformed(f"its entry point {entry:#x} is in none of its segments")
    return Kernel(entry, tuple(segments))


def _malformed(cause: str) -> InvalidArgument:
    return InvalidArgument(
        f"The kernel image cannot be loaded: {cause}.",
        reason="KERNEL_MALFORMED",
        next_step="Give a static ELF64 executable for x86-64, linked to run at its physical addresses from 1 MiB up.",
    )
