"""QEMU with a kernel of Debian and busybox in memory: a guest that runs one shell script and says what it sees.

The kernel is an installed one, or an unpacked package `linux-image-*` in the folder that LAMINA_GUEST_KERNEL names
(`apt-get download`, `dpkg-deb -x`). The guest is emulated, so that it runs where there is no KVM. Its console is the
judge. Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst; qemu-system-x86_64(1).
"""

from __future__ import annotations

import asyncio
import lzma
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

_PROGRAM = "qemu-system-x86_64"
_MODULES = ("net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko")
_MACHINE = ("-M", "q35,usb=off", "-accel", "tcg", "-cpu", "max", "-m", "128", "-no-reboot")
_QUIET = ("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-monitor", "none")
_FOLDER, _PROGRAM_FILE, _FILE = 0o40755, 0o100755, 0o100644


def needs_qemu() -> tuple[Path, Path]:
    """Returns a kernel and the folder of its modules; skips a test where QEMU, busybox or a kernel is missing."""
    if shutil.which(_PROGRAM) is None or shutil.which("busybox") is None:
        pytest.skip(f"there is no program {_PROGRAM}, or no busybox")
    root = Path(os.environ.get("LAMINA_GUEST_KERNEL", "/"))
    for kernel in sorted((root / "boot").glob("vmlinuz-*")):
        version = kernel.name.removeprefix("vmlinuz-")
        for modules in (root / "usr/lib/modules" / version, root / "lib/modules" / version):
            if all(_module(modules / "kernel" / name) for name in _MODULES):
                return kernel, modules / "kernel"
    pytest.skip("there is no kernel for a guest: no vmlinuz-* with its modules, and none in LAMINA_GUEST_KERNEL")


def _module(path: Path) -> bytes:
    """Returns a module that lies there as it is or compressed, or nothing."""
    if path.exists():
        return path.read_bytes()
    packed = path.with_name(f"{path.name}.xz")
    return lzma.decompress(packed.read_bytes()) if packed.exists() else b""


def first_files(modules: Path, script: str, files: dict[str, str]) -> bytes:
    """Returns an archive that the kernel unpacks at its start: busybox, modules, programs, and `script` as /init."""
    busybox = Path(shutil.which("busybox") or "").read_bytes()
    load = "".join(f"busybox insmod /lib/{Path(name).name}\n" for name in _MODULES)
    mounts = "busybox mount -t proc proc /proc\nbusybox mount -t devtmpfs dev /dev\nbusybox ip link set lo up\n"
    entries = [(name, _FOLDER, b"") for name in ("bin", "dev", "etc", "lib", "proc")]
    entries.append(("bin/busybox", _PROGRAM_FILE, busybox))
    entries += [(f"lib/{Path(name).name}", _FILE, _module(modules / name)) for name in _MODULES]
    entries += [(name, _PROGRAM_FILE, text.encode()) for name, text in files.items()]
    init = f"#!/bin/busybox sh\n{mounts}{load}{script}\nbusybox poweroff -f\n"
    entries += [("init", _PROGRAM_FILE, init.encode()), ("TRAILER!!!", 0, b"")]
    return b"".join(_entry(number, *entry) for number, entry in enumerate(entries, 1))


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    title = name.encode() + b"\0"
    numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(title), 0)
    head = b"070701" + b"".join(b"%08X" % each for each in numbers) + title
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


@asynccontextmanager
async def booted(kernel: Path, initrd: Path, nics: Sequence[tuple[str, str]]) -> AsyncIterator[asyncio.StreamReader]:
    """Runs a guest whose NICs are (`-netdev` without its id, MAC address); gives its console. It ends with the test."""
    words = [*_MACHINE, *_QUIET, "-kernel", str(kernel), "-initrd", str(initrd)]
    words += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
    for number, (wire, mac) in enumerate(nics):
        words += ["-netdev", f"{wire},id=n{number}", "-device", f"virtio-net-pci,netdev=n{number},mac={mac},romfile="]
    process = await asyncio.create_subprocess_exec(
        _PROGRAM,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(console: asyncio.StreamReader, within_s: float) -> str:
    """Returns what a guest said until it was off; fails, with that, when it is not in time."""
    heard = bytearray()
    try:
        async with asyncio.timeout(within_s):
            while piece := await console.read(4096):
                heard += piece
    except TimeoutError:
        pytest.fail(f"after {within_s:g} s the guest is not off; it said:\n{heard.decode(errors='replace')}")
    return heard.decode(errors="replace").replace("\r", "")
