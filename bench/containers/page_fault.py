"""Page fault to restart: a guest program touches pages on a modelled core, against a userfaultfd of this machine.

    python bench/containers/page_fault.py [--pages 4000] [--rounds 5]

Ours: the instruction faults, the core's run exits, the container kernel asks the MMU (`Spaces.Fault`), the page is
zeroed and mapped, the run goes on with the same instruction; embedded, unsampled. What the container takes without the
touches is taken off. The peer does the same with the kernel's own means: a thread touches a page, the kernel tells this
process over a userfaultfd, which answers with a page of zeros (UFFDIO_ZEROPAGE). Rounds are interleaved; the machine is
shared, so only the ratio counts. Source: Linux, Documentation/admin-guide/mm/userfaultfd.rst.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import fcntl
import mmap
import os
import statistics
import struct
import tempfile
import threading
import time
from pathlib import Path

from _containers import Containers, compiled  # type: ignore[import-not-found]  # it lies beside this script

from lamina_cli.stack.embedded import private_stack

PAGE = 4096
AIM_US = 60.0
"""What a fault may cost from the core's exit to the restart, in microseconds."""
NR_USERFAULTFD, USER_MODE_ONLY = 323, 1
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
"""Of include/uapi/linux/userfaultfd.h, on x86-64."""
API, MISSING = 0xAA, 1


def userfaultfd(pages: int) -> float:
    """Returns the seconds that a thread takes to touch pages which this process supplies over a userfaultfd."""
    libc = ctypes.CDLL(None, use_errno=True)
    uffd = libc.syscall(NR_USERFAULTFD, USER_MODE_ONLY | os.O_CLOEXEC)
    if uffd < 0:
        raise OSError(ctypes.get_errno(), "this kernel lets nobody make a userfaultfd")
    try:
        fcntl.ioctl(uffd, UFFDIO_API, struct.pack("<QQQ", API, 0, 0))
        memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        fcntl.ioctl(uffd, UFFDIO_REGISTER, struct.pack("<QQQQ", first, pages * PAGE, MISSING, 0))

        def touch() -> None:
            for page in range(pages):
                libc.memset(ctypes.c_void_p(first + page * PAGE), 1, 1)  # without the interpreter's lock

        toucher = threading.Thread(target=touch)
        start = time.perf_counter()
        toucher.start()
        for _ in range(pages):
            (address,) = struct.unpack_from("<Q", os.read(uffd, 32), 16)
            fcntl.ioctl(uffd, UFFDIO_ZEROPAGE, struct.pack("<QQQq", address & -PAGE, PAGE, 0, 0))
        toucher.join()
        return time.perf_counter() - start
    finally:
        os.close(uffd)


async def main(pages: int, rounds: int) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        elf = compiled(Path(folder))
        async with private_stack() as stack:
            containers = Containers(stack.channels["container-runtime"])
            await containers.begin(elf)
            await containers.run("f", pages)  # compiles what the path needs
            ours, theirs = [], []
            for _ in range(rounds):
                empty = await containers.run("f", 0)
                ours.append((await containers.run("f", pages) - empty) / pages * 1e6)
                theirs.append(userfaultfd(pages) / pages * 1e6)
    own, peer = statistics.median(ours), statistics.median(theirs)
    print(f"{'':24}{'µs a fault':>12}{'of userfaultfd':>18}")
    print(f"{'userfaultfd':24}{peer:>12.1f}{1:>17.2f}×")
    print(f"{'fault to restart':24}{own:>12.1f}{own / peer:>17.2f}×")
    print(f"a fault takes {own:.1f} µs, {'within' if own <= AIM_US else 'over'} the aim of {AIM_US:.0f} µs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=4000, help="pages touched in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.pages, arguments.rounds))
