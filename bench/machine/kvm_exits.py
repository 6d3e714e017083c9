"""Exits of KVM for a port, beside a C loop in the same run: `./run bench kvm_exits`.

    python bench/machine/kvm_exits.py [--exits 20000] [--rounds 7]

The guest writes to a port for ever, in 64-bit mode at ring 0. The peer is a loop in C that does KVM_RUN and looks at
the exit, compiled with `cc` when there is one. Ours: the engine's core alone; `Cpu.Run` on the in-process channel; and
the same call on a modelled core. Times are those of the processor, so that others on the machine disturb little; rounds
are interleaved, and only ratios mean much. The aim: the core at most 1.5 times the C loop.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lamina.hardware.v1 import hardware_pb2 as pb
from lamina.hardware.v1 import hardware_pb2_grpc as rpc

from lamina_hardware.config import HardwareConfig
from lamina_hardware.engines.interface import CoreRun
from lamina_hardware.io.kvm.core import KvmCore
from lamina_hardware.io.kvm.vm import KvmHost
from lamina_hardware.io.reset import reset_registers
from lamina_hardware.server import build
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import DIRTY_ALL, ExitReason, RunPage
from lamina_kit.clock import RealClock
from lamina_kit.engines import engines_of
from lamina_kit.layer.service import Environment, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng

AIM = 1.5
IO = int(ExitReason.IO)  # a number: looking it up in the enumeration costs a tenth of an exit
RAM = 64 << 20
TEXT = 0x10_0000
LOOP = bytes.fromhex("e680ebfc")  # again: out 0x80, al; jmp again
# guest: one page of 2 MiB at 0 by three tables; EPT: the same, with its own
TABLES = {0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x83, 0x5000: 0x6007, 0x6000: 0x7007, 0x7000: 0xB7}
ROOT, EPTP = 0x1000, 0x5000

C_LOOP = r"""
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
int main(int argc, char **argv) {
    long exits = atol(argv[1]), seen = 0;
    int kvm = open("/dev/kvm", O_RDWR), vm = ioctl(kvm, KVM_CREATE_VM, 0), size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    char *ram = mmap(0, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region slot = {0, 0, 0, 2 << 20, (unsigned long)ram};
    ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_run *run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    *(unsigned long *)(ram + 0x1000) = 0x2003, *(unsigned long *)(ram + 0x2000) = 0x3003;
    *(unsigned long *)(ram + 0x3000) = 0x83;
    memcpy(ram + 0x100000, "\xe6\x80\xeb\xfc", 4);
    struct kvm_sregs s;
    ioctl(vcpu, KVM_GET_SREGS, &s);
    struct kvm_segment code = {0, ~0u, 8, 11, 1, 0, 0, 1, 1, 0, 1, 0}, data = {0, ~0u, 16, 3, 1, 0, 1, 0, 1, 0, 1, 0};
    code.s = 1, code.l = 1, code.db = 0, data.s = 1;
    s.cs = code, s.ss = s.ds = s.es = s.fs = s.gs = data;
    s.cr0 = 0x80010033, s.cr3 = 0x1000, s.cr4 = 0x620, s.efer = 0x500;
    struct kvm_regs r = {.rip = 0x100000, .rflags = 2};
    if (ioctl(vcpu, KVM_SET_SREGS, &s) || ioctl(vcpu, KVM_SET_REGS, &r)) return 1;
    struct timespec a, b;
    ioctl(vcpu, KVM_RUN, 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (long i = 0; i < exits; i++) {
        if (ioctl(vcpu, KVM_RUN, 0) || run->exit_reason != KVM_EXIT_IO) return 2;
        seen += run->io.port == 0x80;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    if (seen != exits) return 3;
    printf("%f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / 1e3 / exits);
    return 0;
}
"""


def compile_peer(folder: Path, source_text: str = C_LOOP) -> Path | None:
    """Returns the C loop as a program; None, with the reason on standard error, when it cannot be made."""
    cc = shutil.which("cc")
    if cc is None:
        print("no C loop: there is no cc", file=sys.stderr)
        return None
    source, program = folder / "peer.c", folder / "peer"
    source.write_text(source_text)
    done = subprocess.run([cc, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"no C loop: cc says {done.stderr.strip()[:300]}", file=sys.stderr)
        return None
    return program


def run_peer(program: Path, exits: int) -> float:
    """Returns microseconds an exit of the C loop."""
    done = subprocess.run([program, str(exits)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the C loop ended with {done.returncode}")
    return float(done.stdout)


def fill(bus: MemoryBus, page: RunPage) -> None:
    """Puts tables, program and registers in place."""
    for place, entry in TABLES.items():
        bus.store64(place, entry)
    bus.write(TEXT, LOOP)
    page.cr3, page.rip, page.dirty = ROOT, TEXT, DIRTY_ALL


class Alone:
    """The engine's core, without a service."""

    def __init__(self, folder: Path) -> None:
        self._bus = MemoryBus.create(folder / "alone", RAM, run_pages=1)
        reset_registers(self._bus.run_page(0), 0)
        fill(self._bus, RunPage(self._bus.run_page(0)))
        self._host = KvmHost(self._bus)
        self._core = KvmCore(self._host)
        self._work = CoreRun(context=1, run_page=0, eptp=EPTP, exceptions=0, syscall=False)

    def measure(self, exits: int) -> float:
        """Returns microseconds an exit."""
        core, work = self._core, self._work
        began = time.process_time()
        for _ in range(exits):
            if core.run(work).reason != IO:
                raise SystemExit("the core left for something else than a port")
        return (time.process_time() - began) / exits * 1e6

    def close(self) -> None:
        """Frees it."""
        self._core.close()
        self._host.close()
        self._bus.close()


class Called:
    """`Cpu.Run` of a hardware service in this process."""

    async def start(self, folder: Path, engine: str) -> None:
        """Starts the service and makes the context."""
        layer = LayerState("hardware", "h1", RealClock(), Rng(7), engine=engine)
        environment = Environment("h1", RealClock(), Rng(7), folder, layer, bus_path=folder / "ram")
        self._service: Any = build(environment, HardwareConfig(memory_bytes=RAM, run_pages=8, cores=1))
        await self._service.start()
        cpu = rpc.CpuStub(local(self._service, layer))  # type: ignore[arg-type, unused-ignore]
        intercepts = pb.Intercepts(exceptions=0, cpuid=False, syscall=False)
        wish: Any = pb.Context(eptp=EPTP, intercepts=intercepts)
        context: Any = await cpu.CreateContext(pb.CreateContextRequest(context=wish))
        assert environment.bus is not None
        fill(environment.bus, RunPage(environment.bus.run_page(context.run_page)))
        self._stream: Any = cpu.Run()
        self._request = pb.RunRequest(handle=context.handle)

    async def measure(self, exits: int) -> float:
        """Returns microseconds an exit."""
        stream, request = self._stream, self._request
        began = time.process_time()
        for _ in range(exits):
            await stream.write(request)
            if (await stream.read()).reason != IO:
                raise SystemExit("the run ended for something else than a port")
        return (time.process_time() - began) / exits * 1e6

    async def stop(self) -> None:
        """Stops the service."""
        self._stream.cancel()
        await self._service.stop()


async def measure(exits: int, rounds: int, folder: Path) -> None:
    """Prints the medians of all rounds."""
    peer = compile_peer(folder)
    alone, kvm, model = Alone(folder), Called(), Called()
    for name, called in (("kvm", kvm), ("model", model)):
        os.mkdir(folder / name)
        await called.start(folder / name, name)
    found: dict[str, list[float]] = {"C loop": [], "core": [], "Cpu.Run": [], "Cpu.Run, modelled core": []}
    for _ in range(rounds):
        if peer is not None:
            found["C loop"].append(await asyncio.to_thread(run_peer, peer, exits))
        found["core"].append(alone.measure(exits))
        found["Cpu.Run"].append(await kvm.measure(exits))
        found["Cpu.Run, modelled core"].append(await model.measure(exits))
    alone.close()
    await kvm.stop()
    await model.stop()
    base = statistics.median(found["C loop"]) if found["C loop"] else None
    for name, values in found.items():
        if values:
            middle = statistics.median(values)
            ratio = f"   {middle / base:5.2f} x C" if base else ""
            print(f"{name:24} {middle:8.2f} µs an exit   {1e6 / middle:10,.0f} a second{ratio}")
    if base:
        times = statistics.median(found["core"]) / base
        print(f"aim: the core ≤ {AIM:g} x C: {'met' if times <= AIM else 'missed'} ({times:.2f})")


def main() -> None:
    """Reads the arguments and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exits", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    if missing := engines_of("hardware")["kvm"].missing():
        raise SystemExit("; ".join(missing))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(given.exits, given.rounds, Path(folder)))


if __name__ == "__main__":
    main()
