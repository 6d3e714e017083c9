"""A static program and the containers that run it, for the measurements of the container kernel."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc

from lamina_cli.guests.compiler import compile_static
from lamina_cli.guests.oci import Config, File, build_image

LONG_S = 300.0
SOURCE = r"""
static long call(long n, long a, long b, long c) {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}
static long number(const char *text) { long n = 0; while (*text) n = n * 10 + *text++ - '0'; return n; }
void run(long *stack) {
    char **argv = (char **)(stack + 1);
    long count = number(argv[2]);
    char kind = argv[1][0];
    long at = call(12, 0, 0, 0);
    if (kind == 'f') call(12, at + count * 4096, 0, 0);
    for (long i = 0; i < count; i++) {
        if (kind == 's') call(39, 0, 0, 0);
        if (kind == 'f') *(volatile char *)(at + i * 4096) = 1;
        if (kind == 'p') {
            long child = call(57, 0, 0, 0);
            if (!child) call(231, 0, 0, 0);
            call(61, child, 0, 0);
        }
    }
    call(231, 0, 0, 0);
}
asm(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
"""
"""`program KIND COUNT`: makes system calls (s), touches pages (f), forks and waits (p), or ends at once (n)."""


def compiled(folder: Path) -> bytes:
    """Returns the program as a static ELF file, compiled in a folder."""
    (folder / "program.c").write_text(SOURCE)
    return compile_static(folder, ["program.c"])


class Containers:
    """A sandbox, and an image with the program."""

    def __init__(self, channel: Any) -> None:
        self._containers = rpc.ContainersStub(channel)
        self._images, self._sandboxes = rpc.ImagesStub(channel), rpc.SandboxesStub(channel)
        self._image = self._sandbox = ""
        self._number = 0

    async def begin(self, elf: bytes) -> None:
        """Imports the image and runs the sandbox."""
        archive = build_image([File("program", elf, mode=0o755)], Config())

        async def messages() -> Any:
            yield pb.ImportImageRequest(start=pb.ImportStart())
            yield pb.ImportImageRequest(chunk=archive)

        self._image = (await self._images.ImportImage(messages())).images[0].name
        request = pb.RunSandboxRequest(sandbox=pb.Sandbox(metadata=pb.SandboxMetadata(name="bench")))
        self._sandbox = (await self._sandboxes.RunSandbox(request)).name

    async def run(self, kind: str, count: int) -> float:
        """Returns the seconds that a container of the program takes, from its creation to its end."""
        self._number += 1
        metadata = pb.ContainerMetadata(name=f"c{self._number}")
        command = ["/program", kind, str(count)]
        wanted = pb.Container(sandbox=self._sandbox, metadata=metadata, image=self._image, command=command)
        start = time.perf_counter()
        made = await self._containers.CreateContainer(pb.CreateContainerRequest(container=wanted))
        await self._containers.StartContainer(pb.StartContainerRequest(name=made.name))
        ended = await self._containers.WaitContainer(pb.WaitContainerRequest(name=made.name), timeout=LONG_S)
        taken = time.perf_counter() - start
        assert ended.exit_code == 0, ended
        await self._containers.RemoveContainer(pb.RemoveContainerRequest(name=made.name))
        return taken
