"""VM exits per second through the hypervisor, and boot time to the prompt, beside bare Unicorn in the same run.

    python bench/machine/vm_exits.py [--exits 20000] [--rounds 5]

The guest sends bytes to its serial port in a loop of three instructions. Embedded, each is one exit: core, hardware
layer, `Cpu.Run` stream, hypervisor, serial device, ledger, and back. The peer is the same loop on a bare emulator whose
OUT hook is a Python function that appends the byte, once letting the emulator go on and once stopping it, as an exit
does. Rounds are interleaved; only the ratios mean much on a shared machine. The aim is at most 15 µs an exit and a boot
in under 0.2 s.

Where KVM is, the same guest runs over the engine set `kvm` as well, beside a loop in C that runs the same code by
KVM_RUN and looks at each exit (see `kvm_exits.py`). The far aim is 1.5 times that.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import tempfile
import time
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from lamina.hypervisor.v1 import hypervisor_pb2_grpc

from lamina_cli.guests import kernel as guest_kernel
from lamina_cli.guests.assets import asset
from lamina_cli.stack.embedded import Settings, Stack, private_stack
from lamina_kit.engines import SETS, engines_of

AIM_EXIT_US = 15.0
AIM_BOOT_S = 0.2
AIM_KVM = 1.5
KERNEL_AT = 0x100000
MEMORY = 64 << 20
PROMPT = b"> "
STOPPED = pb.VirtualMachine.STATE_STOPPED

kvm_exits: Any = import_module("kvm_exits")  # beside this file


def loop(exits: int) -> bytes:
    """Returns code that sends `exits` bytes to port 0x3f8 and halts."""
    setup = b"\xb9" + struct.pack("<I", exits) + b"\x66\xba\xf8\x03\xb0x"  # mov ecx, n; mov dx, 0x3f8; mov al, 'x'
    return setup + b"\xee\xff\xc9\x75\xfb" + b"\xfa\xf4"  # again: out dx, al; dec ecx; jnz again; cli; hlt


def elf(code: bytes) -> bytes:
    """Returns a kernel image of that code."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, KERNEL_AT, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    size = len(code)
    return header + struct.pack("<IIQQQQQQ", 1, 7, 120, KERNEL_AT, KERNEL_AT, size, size, 0x1000) + code


def bare(exits: int, stop: bool) -> float:
    """Returns microseconds an OUT on a bare emulator; with `stop` each one leaves it and enters it again."""
    unicorn: Any = import_module("unicorn")
    x86_const: Any = import_module("unicorn.x86_const")
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(KERNEL_AT, 0x1000)
    code = loop(exits)
    uc.mem_write(KERNEL_AT, code)
    sent = bytearray()

    def out(machine: Any, port: int, size: int, value: int, data: Any) -> None:
        sent.append(value & 0xFF)
        if stop:
            machine.emu_stop()

    uc.hook_add(unicorn.UC_HOOK_INSN, out, None, 1, 0, x86_const.UC_X86_INS_OUT)
    end = KERNEL_AT + len(code) - 1
    began = time.perf_counter()
    at = KERNEL_AT
    while at < end - 1 and len(sent) < exits:
        uc.emu_start(at, end)
        at = uc.reg_read(x86_const.UC_X86_REG_RIP)
    return (time.perf_counter() - began) / exits * 1e6


class Guests:
    """VMs on an embedded stack."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def define(self, vm_id: str, kernel: bytes) -> str:
        """Creates a VM; returns its name."""
        vm = pb.VirtualMachine(memory_bytes=MEMORY)
        request = pb.CreateVirtualMachineRequest(vm_id=vm_id, virtual_machine=vm, kernel=kernel)
        return str((await self._stub.CreateVirtualMachine(request)).name)

    async def run(self, name: str, until: bytes = b"") -> float:
        """Starts a VM and follows its serial port to its end, or to `until`; returns the seconds that took."""
        began = time.perf_counter()
        await self._stub.StartVirtualMachine(pb.StartVirtualMachineRequest(name=name))
        output = b""
        call = self._stub.ReadSerial(pb.ReadSerialRequest(name=name, follow=True))
        async for piece in call:
            output += piece.data
            if until and output.endswith(until):
                break
        took = time.perf_counter() - began
        call.cancel()
        await self._stub.StopVirtualMachine(pb.StopVirtualMachineRequest(name=name))
        return took

    async def exits(self, name: str) -> tuple[float, float]:
        """Runs a VM to its halt without a reader; returns microseconds an exit, in all and in the dispatcher."""
        began = time.perf_counter()
        await self._stub.StartVirtualMachine(pb.StartVirtualMachineRequest(name=name))
        request = pb.GetVirtualMachineRequest(name=name)
        while (await self._stub.GetVirtualMachine(request)).state != STOPPED:  # noqa: ASYNC110 (a follower costs)
            await asyncio.sleep(0.005)
        took = time.perf_counter() - began
        ledger = await self._stub.GetExitLedger(pb.GetExitLedgerRequest(name=name))
        return took / ledger.total_exits * 1e6, ledger.total_host_time_ns / ledger.total_exits / 1e3


def guests_of(stack: Stack) -> Guests:
    """Returns the VMs of a stack."""
    return Guests(stack.client().stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub))


def c_loop(exits: int) -> str:
    """Returns the peer in C with the sender's code, which leaves for more bytes than are counted."""
    code = "".join(f"\\x{byte:02x}" for byte in loop(2 * exits + 2))
    return (
        str(kvm_exits.C_LOOP)
        .replace('"\\xe6\\x80\\xeb\\xfc", 4', f'"{code}", {len(loop(exits))}')
        .replace("== 0x80", "== 0x3f8")
    )


class OnKvm:
    """The sender on a stack of the engine set `kvm`, beside the loop in C."""

    def __init__(self, stack: Stack, peer: Path | None, exits: int) -> None:
        self._guests, self._peer, self._exits = guests_of(stack), peer, exits
        self.found: list[tuple[float, float, float]] = []

    async def open(self) -> None:
        """Defines the VM, and runs it once: the first core of a service compiles."""
        self._sender = await self._guests.define("sender", elf(loop(self._exits)))
        await self._guests.exits(self._sender)

    async def round(self) -> None:
        """Measures once: an exit in all, in the dispatcher, and in C."""
        peer = 0.0 if self._peer is None else await asyncio.to_thread(kvm_exits.run_peer, self._peer, self._exits)
        self.found.append((*await self._guests.exits(self._sender), peer))

    def tell(self) -> None:
        """Prints the medians."""
        exit_us, dispatcher, peer = (statistics.median(values) for values in zip(*self.found, strict=True))
        print(f"an exit through the hypervisor, over KVM   {exit_us:8.1f} µs   {1e6 / exit_us:10,.0f} a second")
        print(f"  of which the hypervisor's dispatcher     {dispatcher:8.1f} µs")
        if self._peer is not None:
            ratio = exit_us / peer
            print(f"the same code, C loop over KVM_RUN         {peer:8.1f} µs   ratio {ratio:.1f}", end=" ")
            print(f"(far aim {AIM_KVM:g} {verdict(ratio <= AIM_KVM)})")


async def on_kvm(stacks: AsyncExitStack, exits: int) -> OnKvm | None:
    """Starts what measures over KVM; None, with the reason, where there is none."""
    if missing := engines_of("hardware")["kvm"].missing():
        print(f"nothing over KVM: {'; '.join(missing)}")
        return None
    folder = Path(stacks.enter_context(tempfile.TemporaryDirectory()))
    stack = await stacks.enter_async_context(private_stack(Settings(engines=SETS["kvm"])))
    made = OnKvm(stack, kvm_exits.compile_peer(folder, c_loop(exits)), exits)
    await made.open()
    return made


async def measure(exits: int, rounds: int) -> None:
    """Prints the medians of all rounds."""
    whole, host, hook, stopping, boots = [], [], [], [], []
    async with AsyncExitStack() as stacks:
        guests = guests_of(await stacks.enter_async_context(private_stack()))
        kvm = await on_kvm(stacks, exits)
        sender = await guests.define("sender", elf(loop(exits)))
        kernel = await guests.define("kernel", guest_kernel.compile(asset("guests/kernel")))
        for _ in range(rounds):
            each, dispatcher = await guests.exits(sender)
            whole.append(each)
            host.append(dispatcher)
            hook.append(bare(exits, stop=False))
            stopping.append(bare(exits, stop=True))
            boots.append(await guests.run(kernel, PROMPT))
            if kvm is not None:
                await kvm.round()
    exit_us, stop_us, boot_s = map(statistics.median, (whole, stopping, boots))
    print(f"an exit through the hypervisor, embedded   {exit_us:8.1f} µs   {1e6 / exit_us:10,.0f} a second")
    print(f"  of which the hypervisor's dispatcher     {statistics.median(host):8.1f} µs")
    print(f"bare Unicorn, Python hook, going on        {statistics.median(hook):8.1f} µs")
    print(f"bare Unicorn, Python hook, stop and start  {stop_us:8.1f} µs   ratio {exit_us / stop_us:.1f}")
    print(f"guest kernel, power-on to prompt           {boot_s * 1e3:8.1f} ms")
    print(f"aims: exit ≤ {AIM_EXIT_US:g} µs {verdict(exit_us <= AIM_EXIT_US)}, boot < {AIM_BOOT_S:g} s", end=" ")
    print(verdict(boot_s < AIM_BOOT_S))
    if kvm is not None:
        kvm.tell()


def verdict(met: bool) -> str:
    """Returns the word for an aim that is met or not."""
    return "met" if met else "missed"


def main() -> None:
    """Reads the arguments and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exits", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(measure(given.exits, given.rounds))


if __name__ == "__main__":
    main()
