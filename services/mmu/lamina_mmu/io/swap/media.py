"""What swap areas lie on that are made while the host runs: files in the MMU's state directory, disks."""

from __future__ import annotations

import os
from pathlib import Path

from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_mmu.domain.swap.areas import FIRST, SwapStore
from lamina_mmu.domain.swap.transfers import DiskStore
from lamina_mmu.io.swap.disks import DiskArea
from lamina_mmu.io.swap.files import PAGE, SwapFile


class SwapFiles:
    """Implements `domain.ports.SwapMedia`: the area `extra` is the file `swap-extra` of a folder."""

    def __init__(self, folder: Path, first: SwapFile) -> None:
        """Takes the folder, and the file of the area that the configuration asked for."""
        self._folder = folder
        self._files: dict[str, SwapFile | DiskArea] = {FIRST: first}

    def open(self, name: str, slots: int, disk: DiskArea | None = None, /) -> SwapStore | DiskStore:
        """Returns a disk that was found, or a new file of `slots` pages; SWAP_DEVICE_FULL without room for it."""
        if disk is not None:
            self._files[name] = disk
            return disk
        place = os.statvfs(self._folder)
        room = place.f_bavail * place.f_frsize
        if slots * PAGE > room:
            raise ResourceExhausted(
                f"The file system under {self._folder} has room for {room:,} bytes, not for {slots * PAGE:,}.",
                reason="SWAP_DEVICE_FULL",
                next_step="Free space, or make a smaller area.",
            )
        path = self._folder / f"swap-{name}"
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise FailedPrecondition(
                f"{path} is no file of the MMU.",
                reason="SWAP_FILE_FOREIGN",
                next_step="Move it away, or take another name for the area.",
            )
        file = self._files[name] = SwapFile(path, slots)
        return file

    def remove(self, name: str, /) -> None:
        """Closes and removes the file of an area."""
        self._files.pop(name).close()
        (self._folder / (f"swap-{name}" if name != FIRST else FIRST)).unlink(missing_ok=True)

    def break_io(self, name: str, *, reads: bool, writes: bool) -> None:
        """Makes the disk under an area, or with an empty name under all, fail, or work again."""
        for area, file in self._files.items():
            if not name or area == name:
                file.fails_reads, file.fails_writes = reads, writes

    def close(self) -> None:
        """Closes all files, which then hold nothing of use; those of areas made while running are removed."""
        for name, file in self._files.items():
            file.close()
            if name != FIRST:
                (self._folder / f"swap-{name}").unlink(missing_ok=True)
