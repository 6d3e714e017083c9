"""The file behind a memory bus: where its parts lie, how it is made, and what is refused. `bus/memory.py` maps it.

    ┌─ 0 ───────────┬─ 4096 ─────────────┬─ state_offset ┬─ ram_offset ────┬─ run_offset ────┬─ dma_offset ──┐
    │ header        │ ring of frames     │ state words   │ RAM             │ run pages       │ DMA memory    │
    │ (words below) │ whose code is stale│ uint32 a frame│ 2 MiB aligned   │ 4096 bytes each │ 2 MiB aligned │
    └───────────────┴────────────────────┴───────────────┴─────────────────┴─────────────────┴───────────────┘

The header is nine 64-bit little-endian words: magic, version, file size, RAM size, RAM offset, state offset, run
offset, run pages, size of the DMA memory; and at bytes 128, 192 and 256, a cache line each, the ring's head, its tail
and the flag that all code is stale. `atomics.py` knows these places too. From byte 512 on stand the names of the host
(64 bytes) and of its boot (128 bytes), UTF-8 filled up with zeros: who maps the file checks that it is the RAM that it
means.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from lamina_kit.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    LaminaError,
    NotFound,
    ResourceExhausted,
)
from lamina_kit.paging import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE

RING_OFFSET = PAGE_SIZE
RING_SLOTS = 4096
HEAD_OFFSET, TAIL_OFFSET, ALL_OFFSET = 128, 192, 256
RAM_ALIGNMENT = 2 << 20
MAX_SIZE = 1 << 44
MAX_RUN_PAGES = 1 << 20
MAX_DMA_BYTES = 1 << 40

_MAGIC = int.from_bytes(b"LAMINARM", "little")
_VERSION = 1
_HEADER = struct.Struct("<9Q")
_IDENTITY = struct.Struct("64s128s")
_IDENTITY_OFFSET = 512
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.ENOMEM)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a bus lie in its file: offsets and sizes in bytes, `run_pages` a count."""

    total: int
    size: int
    ram_offset: int
    state_offset: int
    run_offset: int
    run_pages: int
    dma_offset: int
    dma_bytes: int


@dataclass(frozen=True)
class Identity:
    """Whose RAM a bus is: the host and the boot id of its hardware; empty where the maker said nothing."""

    host: str = ""
    boot_id: str = ""


NOBODY = Identity()


def plan(size_bytes: int, run_pages: int, dma_bytes: int = 0) -> Layout:
    """Returns the layout of a new bus.

    Raises `InvalidArgument` `RAM_SIZE_INVALID`, `RUN_PAGES_INVALID` or `DMA_SIZE_INVALID`.
    """
    if not 0 < size_bytes <= MAX_SIZE or size_bytes & PAGE_MASK:
        raise InvalidArgument(
            f"A RAM of {size_bytes} bytes is not possible.",
            reason="RAM_SIZE_INVALID",
            next_step=f"Give a multiple of {PAGE_SIZE} up to {MAX_SIZE}.",
        )
    if not 0 <= run_pages <= MAX_RUN_PAGES:
        raise InvalidArgument(
            f"{run_pages} run pages are not within 0 to {MAX_RUN_PAGES}.",
            reason="RUN_PAGES_INVALID",
            next_step="One run page serves one context.",
        )
    if not 0 <= dma_bytes <= MAX_DMA_BYTES or dma_bytes & PAGE_MASK:
        raise InvalidArgument(
            f"DMA memory of {dma_bytes} bytes is not possible.",
            reason="DMA_SIZE_INVALID",
            next_step=f"Give a multiple of {PAGE_SIZE} up to {MAX_DMA_BYTES}.",
        )
    state_offset = RING_OFFSET + RING_SLOTS * 8
    after_states = state_offset + 4 * (size_bytes >> PAGE_SHIFT)
    ram_offset = _aligned(after_states)
    run_offset = ram_offset + size_bytes
    after_runs = run_offset + run_pages * PAGE_SIZE
    dma_offset = _aligned(after_runs) if dma_bytes else after_runs
    total = dma_offset + dma_bytes
    return Layout(total, size_bytes, ram_offset, state_offset, run_offset, run_pages, dma_offset, dma_bytes)


def _aligned(offset: int) -> int:
    return -(-offset // RAM_ALIGNMENT) * RAM_ALIGNMENT


def make(path: Path, layout: Layout, *, reset: bool, identity: Identity = NOBODY) -> None:
    """Puts an all-zero bus at `path`, stored sparsely, for its user alone.

    It appears under its name complete or not at all. Raises `AlreadyExists` `BUS_EXISTS` as `MemoryBus.create` says,
    `ResourceExhausted` `BUS_NO_ROOM`, or `FailedPrecondition` `BUS_UNUSABLE` when the file cannot be made there.
    """
    if path.exists():
        _check_replaceable(path, layout.size, reset)
    fresh = path.with_name(path.name + ".new")
    try:
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, layout.total)
            os.pwrite(file, _pack(layout), 0)
            os.pwrite(file, _IDENTITY.pack(identity.host.encode(), identity.boot_id.encode()), _IDENTITY_OFFSET)
        finally:
            os.close(file)
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise refusal(path, error) from error


def open_file(path: Path) -> int:
    """Returns a file descriptor of an existing file; `NotFound` `BUS_NOT_FOUND`, or as `make`."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(
            f"There is no memory bus at {path}.",
            reason="BUS_NOT_FOUND",
            next_step="Start the hardware service of this host first; it makes the file.",
        ) from None
    except OSError as error:
        raise refusal(path, error) from error


def read_layout(path: Path, file: int) -> Layout:
    """Returns the layout that the header of an open file states, checked against the file.

    Raises `FailedPrecondition` `BUS_FOREIGN` (no bus, or of another version) or `DataLoss` `BUS_TRUNCATED`.
    """
    raw = os.pread(file, _HEADER.size, 0)
    actual = os.fstat(file).st_size
    header: tuple[int, ...] = _HEADER.unpack(raw.ljust(_HEADER.size, b"\0"))
    layout = _unpack(header)
    if layout is None:
        raise FailedPrecondition(
            f"{path} is not a Lamina memory bus of version {_VERSION}.",
            reason="BUS_FOREIGN",
            next_step="Name the file that this version's hardware service made, or remove it.",
        )
    if actual < layout.total:
        raise DataLoss(
            f"The memory bus {path} has {actual} bytes where its header says {layout.total}.",
            reason="BUS_TRUNCATED",
            next_step="Start the host again; it makes a new file.",
        )
    return layout


def read_identity(path: Path) -> Identity:
    """Returns whose RAM the bus at `path` is.

    Raises as `open_file` and `read_layout`.
    """
    file = open_file(path)
    try:
        read_layout(path, file)
        raw = os.pread(file, _IDENTITY.size, _IDENTITY_OFFSET)
    finally:
        os.close(file)
    host, boot_id = _IDENTITY.unpack(raw.ljust(_IDENTITY.size, b"\0"))
    return Identity(host.rstrip(b"\0").decode(errors="replace"), boot_id.rstrip(b"\0").decode(errors="replace"))


def refusal(path: Path, error: OSError) -> LaminaError:
    """Returns what an error of the operating system means for a bus at `path`."""
    if error.errno in _FULL:
        return ResourceExhausted(
            f"There is no room for the RAM file {path}: {error.strerror}.",
            reason="BUS_NO_ROOM",
            next_step="Choose a file system that takes sparse files of this size, or less RAM.",
        )
    return FailedPrecondition(
        f"The RAM file {path} cannot be used: {error.strerror}.",
        reason="BUS_UNUSABLE",
        next_step="Check the folder and who may write there.",
    )


def _pack(layout: Layout) -> bytes:
    return _HEADER.pack(
        _MAGIC,
        _VERSION,
        layout.total,
        layout.size,
        layout.ram_offset,
        layout.state_offset,
        layout.run_offset,
        layout.run_pages,
        layout.dma_bytes,
    )


def _unpack(header: tuple[int, ...]) -> Layout | None:
    """Returns the layout in a header, or None when it is none that this version would write."""
    magic, version, total, size, ram_offset, state_offset, run_offset, run_pages, dma_bytes = header
    if magic != _MAGIC or version != _VERSION:
        return None
    try:
        layout = plan(size, run_pages, dma_bytes)
    except InvalidArgument:
        return None
    planned = (layout.total, layout.ram_offset, layout.state_offset, layout.run_offset)
    return layout if planned == (total, ram_offset, state_offset, run_offset) else None


def _check_replaceable(path: Path, size_bytes: int, reset: bool) -> None:
    """Raises unless the file at `path` is a bus of this size that the caller wants emptied."""
    problem = "is there already"
    if reset:
        file = open_file(path)
        try:
            size = read_layout(path, file).size
        finally:
            os.close(file)
        if size == size_bytes:
            return
        problem = f"holds {size} bytes of RAM, not {size_bytes}"
    raise AlreadyExists(
        f"The memory bus {path} {problem}.",
        reason="BUS_EXISTS",
        next_step="Open it, reset one of the same size, or remove the file of a host that is down.",
    )
