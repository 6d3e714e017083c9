"""Swap areas of the kernel in files of one folder: made, taken into use, taken out of it.

Taking out of use is a long system call that only a signal ends. It runs in a process of its own, so that it can be
stopped and nothing waits for it. Source: swapon(2), mkswap(8).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path

from lamina_kit.paging import PAGE_SIZE
from lamina_mmu.domain.kernel.swap import areas, header, off_key

_PREFER = 0x8000
"""SWAP_FLAG_PREFER: the low 15 bits are the priority."""
_SYS_ADMIN = 1 << 21
_OFF = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(ctypes.get_errno() if libc.swapoff(os.fsencode(sys.argv[1])) else 0)
"""
_ZEROS = bytes(1 << 20)
_STOP_S = 30
"""How long a stop of the service waits for an area to be out of use."""


class SwapFolder:
    """Implements `domain.kernel.swap.KernelSwap`. `wake` is told when an area is out of use, or could not be."""

    def __init__(self, folder: Path, wake: Callable[[Hashable, object], object], proc: Path = Path("/proc")) -> None:
        self._folder = folder.resolve()
        self._wake = wake
        self._proc = proc
        self._going: dict[str, asyncio.Task[None]] = {}
        self._ended: dict[str, int] = {}
        self._remove_leftovers()

    def allowed(self) -> bool:
        """Returns whether this process has CAP_SYS_ADMIN."""
        for line in (self._proc / "self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & _SYS_ADMIN)
        return False

    def path(self, name: str) -> str:
        """Returns the path of an area."""
        return str(self._folder / name)

    def make(self, name: str, pages: int, is_written: bool) -> int:
        """Makes the file of an area with its header; one that is there already is left alone."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            return -(error.errno or errno.EIO)
        try:
            if is_written:
                for start in range(0, pages * PAGE_SIZE, len(_ZEROS)):
                    os.pwrite(file, _ZEROS[: pages * PAGE_SIZE - start], start)
            else:
                os.posix_fallocate(file, 0, pages * PAGE_SIZE)
            os.pwrite(file, header(pages), 0)
            os.fsync(file)
        except OSError as error:
            self.remove(name)
            return -(error.errno or errno.EIO)
        finally:
            os.close(file)
        return 0

    def on(self, name: str, priority: int) -> int:
        """Takes an area into use."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.swapon(os.fsencode(self.path(name)), _PREFER | priority):
            return -ctypes.get_errno()
        return 0

    def begin_off(self, name: str) -> int:
        """Begins to take an area out of use."""
        self._ended.pop(name, None)
        self._going[name] = asyncio.get_running_loop().create_task(self._take_off(name))
        return 0

    async def _take_off(self, name: str) -> None:
        process = await asyncio.create_subprocess_exec(*_command(self.path(name)))
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        self._ended[name] = -code if code >= 0 else -errno.EINTR
        self._going.pop(name, None)
        self._wake(off_key(name), None)

    def off(self, name: str) -> int | None:
        """Returns how taking an area out of use ended; None while it goes on."""
        return self._ended.pop(name, None)

    def stop_off(self, name: str) -> None:
        """Stops taking an area out of use."""
        task = self._going.pop(name, None)
        if task is not None:
            task.cancel()

    def remove(self, name: str) -> int:
        """Removes the file of an area."""
        try:
            (self._folder / name).unlink()
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    def tune(self, setting: str, value: int) -> int:
        """Writes a setting of /proc/sys/vm."""
        try:
            (self._proc / "sys/vm" / setting).write_text(f"{value}\n")
        except OSError as error:
            return -(error.errno or errno.EIO)
        return 0

    def has_generations(self) -> bool:
        """Returns whether the multi-generation LRU is switched on."""
        try:
            return bool(int(Path("/sys/kernel/mm/lru_gen/enabled").read_text(), 16) & 1)
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Takes the areas of this service out of use; one that cannot be is left, and found at the next start."""
        for name in list(self._going):
            self.stop_off(name)
        for name in self._active():
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(_command(self.path(name)), timeout=_STOP_S, check=False)
        self._remove_leftovers()

    def _active(self) -> list[str]:
        """Returns the areas in this folder that the kernel uses."""
        try:
            text = (self._proc / "swaps").read_text()
        except OSError:
            return []
        paths = [area.path for area in areas(text)]
        return [Path(path).name for path in paths if path == self.path(Path(path).name)]

    def _remove_leftovers(self) -> None:
        """Removes files of areas that are not in use: a service that was killed between two steps left them."""
        active = self._active()
        for file in sorted(self._folder.glob("*")):
            if file.name not in active:
                file.unlink()


def _command(path: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _OFF, path]
