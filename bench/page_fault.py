"""Page fault to restart: a guest program touches pages on a modelled core, against a userfaultfd of this machine.

    python bench/page_fault.py [--pages 4000] [--rounds 5]

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
from typing import Any

from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc

from lamina_cli.compiler import compile_static
from lamina_cli.stack import private_stack
from lamina_kit.oci import Config, File, build_image

PAGE = 4096
AIM_US = 60.0
"""What a fault may cost from the core's exit to the restart, in microseconds."""
SOURCE = r"""
static long call(long n, long a, long b, long c) {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
static long number(const char *text) { long n = 0; while (*text) n = n * 10 + *text++ - '0'; return n; }
void run(long *stack) {
    char **argv = (char **)(stack + 1);
    long count = number(argv[1]);
    long at = call(12, 0, 0, 0);
    call(12, at + count * 4096, 0, 0);
    for (long i = 0; i < count; i++) *(volatile char *)(at + i * 4096) = 1;
    call(231, 0, 0, 0);
}
asm(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
"""
NR_USERFAULTFD, USER_MODE_ONLY = 323, 1
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
"""Of include/uapi/linux/userfaultfd.h, on x86-64."""
API, MISSING = 0xAA, 1


class Containers:
    """A sandbox with the program as an image."""

    def __init__(self, channel: Any) -> None:
        self.containers = rpc.ContainersStub(channel)
        self.images, self.sandboxes = rpc.ImagesStub(channel), rpc.SandboxesStub(channel)
        self.image = self.sandbox = ""
        self.number = 0

    async def begin(self, elf: bytes) -> None:
        """Imports the image and runs the sandbox."""
        archive = build_image([File("program", elf, mode=0o755)], Config())

        async def messages() -> Any:
            yield pb.ImportImageRequest(start=pb.ImportStart())
            yield pb.ImportImageRequest(chunk=archive)

        self.image = (await self.images.ImportImage(messages())).images[0].name
        request = pb.RunSandboxRequest(sandbox=pb.Sandbox(metadata=pb.SandboxMetadata(name="bench")))
        self.sandbox = (await self.sandboxes.RunSandbox(request)).name

    async def touch(self, pages: int) -> float:
        """Returns the seconds that a container takes that touches pages."""
        self.number += 1
        metadata = pb.ContainerMetadata(name=f"c{self.number}")
        wanted = pb.Container(
            sandbox=self.sandbox, metadata=metadata, image=self.image, command=["/program", str(pages)]
        )
        made = await self.containers.CreateContainer(pb.CreateContainerRequest(container=wanted))
        start = time.perf_counter()
        await self.containers.StartContainer(pb.StartContainerRequest(name=made.name))
        ended = await self.containers.WaitContainer(pb.WaitContainerRequest(name=made.name), timeout=300)
        taken = time.perf_counter() - start
        assert ended.exit_code == 0, ended
        await self.containers.RemoveContainer(pb.RemoveContainerRequest(name=made.name))
        return taken


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
        (Path(folder) / "program.c").write_text(SOURCE)
        elf = compile_static(Path(folder), ["program.c"])
        async with private_stack() as stack:
            containers = Containers(stack.channels["container-runtime"])
            await containers.begin(elf)
            await containers.touch(pages)  # compiles what the path needs
            ours, theirs = [], []
            for _ in range(rounds):
                empty = await containers.touch(0)
                ours.append((await containers.touch(pages) - empty) / pages * 1e6)
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
