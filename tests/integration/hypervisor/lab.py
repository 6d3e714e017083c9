"""A host with hardware, MMU and hypervisor in this process, and ways to boot guests and to talk to them."""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import hardware_pb2_grpc
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from lamina.hypervisor.v1 import hypervisor_pb2_grpc
from lamina.mmu.v1 import mmu_pb2_grpc
from tests.virtual_time import clock_of_loop

from lamina_cli.guests.kernel import compile as compile_kernel
from lamina_cli.stack.embedded import builder
from lamina_hardware.config import HardwareConfig
from lamina_hypervisor.config import HypervisorConfig
from lamina_kit.layer.service import Environment, Service, local
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_mmu.config import MmuConfig

ROOT = Path(__file__).parents[3]
PROMPT = b"> "
PATIENCE_S = 30


class Lab:
    """A host with three layers. `services` and `channels` by layer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = clock_of_loop()
        self.rng = Rng(7)
        self.services: dict[str, Service] = {}
        self.states: dict[str, LayerState] = {}
        self.channels: dict[str, Any] = {}
        self.kernel = b""
        self._made = 0

    async def start(self, engine: str = "model", cores: str = "model") -> None:
        """Starts hardware (4 cores, 256 MiB) with the engine `cores`, MMU, and hypervisor with the engine `engine`."""
        await self.compile()
        hardware = HardwareConfig(cores=4, memory_bytes=256 << 20, run_pages=64)
        await self.layer("hardware", hardware, cores)
        await self.layer("mmu", MmuConfig(swap_bytes=256 << 20))
        await self.layer("hypervisor", HypervisorConfig(engine=engine))

    async def compile(self) -> None:
        """Compiles the guest kernel."""
        self.kernel = compile_kernel(ROOT / "guests" / "kernel")

    async def layer(self, name: str, config: Any, engine: str = "model") -> Service:
        """Starts one layer on top of those that run; one that runs already is replaced."""
        state = LayerState(name, "h1", self.clock, self.rng.child(f"{name}-state"), engine=engine)
        (self.folder / name).mkdir(exist_ok=True)
        below = {layer: channel for layer, channel in self.channels.items() if layer != name}
        environment = Environment(
            host="h1", clock=self.clock, rng=self.rng.child(name), state_dir=self.folder / name, layer=state,
            channels=below, bus_path=self.folder / "h1.ram",
        )  # fmt: skip
        service: Service = builder(name)(environment, config)
        await service.start()
        self.services[name], self.states[name] = service, state
        self.channels[name] = local(service, state)
        return service

    async def traps(self) -> bool:
        """Returns whether the cores leave the guest for CPUID and VMCALL."""
        layer: Any = layer_pb2_grpc.LayerStub(self.channels["hardware"])
        answer = await layer.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"))
        return "instruction-exits" in answer.capabilities

    async def remove_all(self) -> None:
        """Deletes every VM."""
        for vm in (await self.vms.ListVirtualMachines(pb.ListVirtualMachinesRequest(page_size=1000))).virtual_machines:
            await self.stop_vm(vm.name)
            await self.vms.DeleteVirtualMachine(pb.DeleteVirtualMachineRequest(name=vm.name))

    async def stop(self) -> None:
        """Stops the layers from the top down."""
        for name in reversed(list(self.services)):
            await self.services.pop(name).stop()

    @property
    def vms(self) -> Any:
        """The hypervisor's stub."""
        return hypervisor_pb2_grpc.VirtualMachinesStub(self.channels["hypervisor"])

    @property
    def cpu(self) -> Any:
        """The hardware's stub for cores."""
        return hardware_pb2_grpc.CpuStub(self.channels["hardware"])

    def mmu(self, service: str) -> Any:
        """One of the MMU's stubs: `Spaces`, `Frames` or `Groups`."""
        return getattr(mmu_pb2_grpc, f"{service}Stub")(self.channels["mmu"])

    async def create(self, kernel: bytes | None = None, memory: int = 64 << 20, **fields: Any) -> str:
        """Creates a VM with a new name; returns the name."""
        self._made += 1
        vm = pb.VirtualMachine(memory_bytes=memory, **fields)
        made = await self.vms.CreateVirtualMachine(
            pb.CreateVirtualMachineRequest(
                vm_id=f"vm-{self._made}", virtual_machine=vm, kernel=self.kernel if kernel is None else kernel
            )
        )
        return str(made.name)

    async def start_vm(self, name: str) -> Any:
        """Starts a VM."""
        return await self.vms.StartVirtualMachine(pb.StartVirtualMachineRequest(name=name))

    async def stop_vm(self, name: str) -> Any:
        """Stops a VM."""
        return await self.vms.StopVirtualMachine(pb.StopVirtualMachineRequest(name=name))

    async def get(self, name: str) -> Any:
        """Returns a VM."""
        return await self.vms.GetVirtualMachine(pb.GetVirtualMachineRequest(name=name))

    async def boot(self, **fields: Any) -> tuple[str, bytes]:
        """Creates and starts a VM; returns its name and its serial output up to the prompt."""
        name = await self.create(**fields)
        await self.start_vm(name)
        return name, await self.until(name, PROMPT)

    async def until(self, name: str, end: bytes, offset: int = 0) -> bytes:
        """Returns serial output from `offset` until it ends with `end`."""
        output = b""
        call = self.vms.ReadSerial(pb.ReadSerialRequest(name=name, follow=True, offset=offset))
        async with asyncio.timeout(PATIENCE_S):
            async for piece in call:
                output += piece.data
                if output.endswith(end):
                    break
        call.cancel()
        return output

    async def serial(self, name: str) -> bytes:
        """Returns all serial output so far."""
        return b"".join([piece.data async for piece in self.vms.ReadSerial(pb.ReadSerialRequest(name=name))])

    async def command(self, name: str, line: str) -> str:
        """Types a line at the prompt; returns what the guest answers up to the next prompt."""
        offset = len(await self.serial(name))
        await self.vms.WriteSerial(pb.WriteSerialRequest(name=name, data=line.encode() + b"\n"))
        return (await self.until(name, PROMPT, offset)).decode()

    async def ended(self, name: str) -> Any:
        """Waits until a VM has no power by itself; returns it."""
        async with asyncio.timeout(PATIENCE_S):
            async for _ in self.vms.ReadSerial(pb.ReadSerialRequest(name=name, follow=True)):
                continue
        return await self.get(name)


def make_kernel(code: bytes) -> bytes:
    """Returns an ELF kernel whose code runs at 1 MiB."""
    start = 64 + 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return header + struct.pack("<IIQQQQQQ", 1, 7, start, 0x100000, 0x100000, len(code), len(code), 0x1000) + code


@asynccontextmanager
async def running_lab() -> AsyncIterator[Lab]:
    """A host that runs, in a folder of its own, with the engines `model`."""
    folder = Path(tempfile.mkdtemp(prefix="lamina-hv-"))
    made = Lab(folder)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        shutil.rmtree(folder)
