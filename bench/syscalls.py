"""System calls, page faults, forks and starts of containers: in Lamina and natively, interleaved in one run.

    python bench/syscalls.py [--rounds 5]

The same static program runs on this machine's kernel and in a container of the modelled stack. The ratio says what one
system call through the modelled core, the container kernel and back costs beside a real one; start is create, start and
exit of a program that does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.container_runtime.v1 import container_runtime_pb2_grpc as rpc

from lamina_cli.compiler import compile_static
from lamina_cli.stack import private_stack
from lamina_kit.oci import Config, File, build_image

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
WORK = {"system calls": ("s", 20_000), "page faults": ("f", 4_000), "fork + wait": ("p", 100), "start + exit": ("n", 1)}


async def contained(channel: Any, image: str, sandbox: str, number: int, words: list[str]) -> float:
    """Returns the seconds that a container takes from start to exit."""
    containers = rpc.ContainersStub(channel)
    wanted = pb.Container(
        sandbox=sandbox, metadata=pb.ContainerMetadata(name=f"c{number}"), image=image, command=["/program", *words]
    )
    start = time.perf_counter()
    made = await containers.CreateContainer(pb.CreateContainerRequest(container=wanted))
    await containers.StartContainer(pb.StartContainerRequest(name=made.name))
    ended = await containers.WaitContainer(pb.WaitContainerRequest(name=made.name), timeout=300)
    taken = time.perf_counter() - start
    assert ended.exit_code == 0, ended
    await containers.RemoveContainer(pb.RemoveContainerRequest(name=made.name))
    return taken


def native(program: Path, words: list[str]) -> float:
    """Returns the seconds that a process takes from start to exit."""
    start = time.perf_counter()
    subprocess.run([program, *words], check=True)
    return time.perf_counter() - start


async def main(rounds: int) -> None:
    """Measures and prints one line for each kind of work."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "program.c").write_text(SOURCE)
        elf = compile_static(Path(folder), ["program.c"])
        program = Path(folder) / "program"
        program.write_bytes(elf)
        program.chmod(0o755)
        async with private_stack() as stack:
            channel = stack.channels["container-runtime"]
            archive = build_image([File("program", elf, mode=0o755)], Config())

            async def messages() -> Any:
                yield pb.ImportImageRequest(start=pb.ImportStart())
                yield pb.ImportImageRequest(chunk=archive)

            image = (await rpc.ImagesStub(channel).ImportImage(messages())).images[0].name
            metadata = pb.SandboxMetadata(name="bench")
            request = pb.RunSandboxRequest(sandbox=pb.Sandbox(metadata=metadata))
            sandbox = (await rpc.SandboxesStub(channel).RunSandbox(request)).name
            await measure(channel, image, sandbox, program, rounds)


async def measure(channel: Any, image: str, sandbox: str, program: Path, rounds: int) -> None:
    """Runs each kind of work `rounds` times in both worlds, in turn, and prints medians."""
    number = 0
    for what, (kind, count) in WORK.items():
        ours, theirs = [], []
        for _ in range(rounds):
            number += 1
            ours.append(await contained(channel, image, sandbox, number, [kind, str(count)]))
            theirs.append(native(program, [kind, str(count)]))
        own, real = statistics.median(ours), statistics.median(theirs)
        print(f"{what:13} {count:6}  {own / count * 1e6:9.1f} µs each  {count / own:9.0f}/s  {own / real:7.1f}× native")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(main(parser.parse_args().rounds))
