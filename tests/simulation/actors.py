"""Those who use the stack while it breaks. Each goes on whatever fails, and knows what it may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import io
from typing import Any

import grpc
from lamina.hypervisor.v1 import hypervisor_pb2, hypervisor_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from lamina.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from lamina.vswitch.v1 import vswitch_pb2, vswitch_pb2_grpc

from lamina_cli.demo import cluster, pods
from lamina_cli.demo.frames import ALICE, BOB, BROADCAST, Plug, frame
from lamina_cli.demo.guest import PROMPT, until_prompt
from lamina_cli.demo.images import build
from lamina_cli.guests.images import send
from lamina_cli.guests.kernel import kernel_bytes, upload
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng

PAGE = 4096
FAILURES = (grpc.aio.AioRpcError, LaminaError, TimeoutError, StopAsyncIteration, asyncio.InvalidStateError)
MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, labels: {app: hello}}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
        - name: hello
          image: lamina.local/hello:latest
          resources: {requests: {cpu: 100m, memory: 1Mi}, limits: {memory: 4Mi}}
"""


class Workload:
    """A deployment that is scaled and whose pods are deleted time and again."""

    def __init__(self, client: Any, rng: Rng, clients: list[Any]) -> None:
        self.client, self.rng, self.clients = client, rng, clients
        self.replicas = 2

    async def prepare(self) -> None:
        """Imports the image on every host and applies the deployment."""
        from lamina.container_runtime.v1 import container_runtime_pb2_grpc as services

        built = build("hello")
        for client in self.clients:
            stub = client.stub("container-runtime", services.ImagesStub)
            await send(stub, io.BytesIO(built.layout), built.reference)
        stub = self.client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
        await stub.ApplyObjects(orchestrator_pb2.ApplyObjectsRequest(manifest=MANIFEST))

    async def run(self) -> None:
        """Scales it to 0 to 4 replicas or deletes one of its pods, for ever."""
        while True:
            await asyncio.sleep(self.rng.randint(500, 6000) / 1000)
            if self.rng.random() < 0.3:
                await self.delete_one()
                continue
            self.replicas = self.rng.randint(0, 4)
            await cluster.scale(self.client, "hello", self.replicas)

    async def delete_one(self) -> None:
        """Deletes a pod, if there is one; another one has to take its place."""
        stub = self.client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
        listed = (await stub.ListObjects(orchestrator_pb2.ListObjectsRequest(kind="Pod"))).objects
        if listed:
            name = self.rng.choice(sorted(pod.name for pod in listed))
            reference = orchestrator_pb2.ObjectReference(kind="Pod", namespace="default", name=name)
            try:
                await stub.DeleteObject(orchestrator_pb2.DeleteObjectRequest(reference=reference))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:  # it may have gone since it was listed
                    raise

    async def converge(self) -> None:
        """Waits until as many pods as wanted are ready, with a process each."""
        await until(self.client, cluster.ready_pods(self.replicas), f"{self.replicas} ready pods")
        for _ in range(60):
            found = [one for client in self.clients for one in await pods.running(client)]
            if len(found) == self.replicas:
                return
            await asyncio.sleep(1)
        raise AssertionError(f"{self.replicas} pods are ready, and {len(found)} processes run: {found}")

    async def remove(self) -> None:
        """Deletes the deployment and waits until its pods are gone."""
        stub = self.client.stub("orchestrator", orchestrator_pb2_grpc.ObjectsStub)
        reference = orchestrator_pb2.ObjectReference(kind="Deployment", namespace="default", name="hello")
        await stub.DeleteObject(orchestrator_pb2.DeleteObjectRequest(reference=reference))
        await until(self.client, lambda left: not left, "no pods")


async def until(client: Any, wanted: Any, what: str, seconds: float = 900.0) -> None:
    """Waits up to 15 minutes of virtual time for the pods to be as wanted."""
    seen: cluster.Objects = {}
    try:
        async with asyncio.timeout(seconds):
            await cluster._watch(client, "Pod", wanted, seen)
    except TimeoutError:
        raise AssertionError(f"{seconds:g} s after all faults ended still not {what}: {summary(seen)}") from None


def summary(objects: cluster.Objects) -> str:
    """Returns pods with what their statuses say."""
    return "; ".join(
        f"{name} {'deleting ' if pod['metadata'].get('deletionTimestamp') else ''}{pod.get('status', {})}"
        for name, pod in sorted(objects.items())
    )


class Guest:
    """A virtual machine that is started whenever it stands."""

    def __init__(self, client: Any, rng: Rng) -> None:
        self.vms = client.stub("hypervisor", hypervisor_pb2_grpc.VirtualMachinesStub)
        self.rng = rng
        self.name = ""

    async def prepare(self) -> None:
        """Defines the machine."""
        digest = await upload(self.vms, kernel_bytes(None))
        wanted = hypervisor_pb2.VirtualMachine(vcpu_count=1, memory_bytes=16 << 20, kernel_digest=digest)
        request = hypervisor_pb2.CreateVirtualMachineRequest(vm_id="guest", virtual_machine=wanted)
        self.name = (await self.vms.CreateVirtualMachine(request)).name

    async def run(self) -> None:
        """Starts, uses and stops it, for ever."""
        while True:
            try:
                await self.start()
                await asyncio.sleep(self.rng.randint(0, 4000) / 1000)
                if self.rng.random() < 0.5:
                    await self.vms.StopVirtualMachine(hypervisor_pb2.StopVirtualMachineRequest(name=self.name))
            except FAILURES:
                await asyncio.sleep(0.5)

    async def start(self) -> None:
        """Starts it if it has no power, and waits for its prompt."""
        vm = await self.vms.GetVirtualMachine(hypervisor_pb2.GetVirtualMachineRequest(name=self.name))
        without = (hypervisor_pb2.VirtualMachine.STATE_STOPPED, hypervisor_pb2.VirtualMachine.STATE_CRASHED)
        if vm.state in without:
            await self.vms.StartVirtualMachine(hypervisor_pb2.StartVirtualMachineRequest(name=self.name))
        await until_prompt(self.vms, self.name)

    async def works(self) -> None:
        """Has it boot to its prompt now that nothing fails."""
        await self.vms.StopVirtualMachine(hypervisor_pb2.StopVirtualMachineRequest(name=self.name))
        await self.vms.StartVirtualMachine(hypervisor_pb2.StartVirtualMachineRequest(name=self.name))
        text = await until_prompt(self.vms, self.name)
        assert text.endswith(PROMPT), f"the guest says {text[-80:]!r} instead of its prompt"

    async def remove(self) -> None:
        """Deletes it."""
        await self.vms.StopVirtualMachine(hypervisor_pb2.StopVirtualMachineRequest(name=self.name))
        await self.vms.DeleteVirtualMachine(hypervisor_pb2.DeleteVirtualMachineRequest(name=self.name))


class Pages:
    """A space of 48 pages under a limit of 12: what was written is read back, or the write is known to be uncertain."""

    COUNT, LIMIT, BASE = 48, 12, 0x1000_0000

    def __init__(self, client: Any, rng: Rng) -> None:
        self.spaces = client.stub("mmu", mmu_pb2_grpc.SpacesStub)
        self.groups = client.stub("mmu", mmu_pb2_grpc.GroupsStub)
        self.rng = rng
        self.possible: list[set[bytes]] = [{bytes(PAGE)} for _ in range(self.COUNT)]

    async def prepare(self) -> None:
        """Makes group and space."""
        group = mmu_pb2.Group(max_bytes=self.LIMIT * PAGE)
        self.group = await self.groups.CreateGroup(mmu_pb2.CreateGroupRequest(group_id="sim", group=group))
        wanted = mmu_pb2.Space(kind=mmu_pb2.Space.KIND_PROCESS, group=self.group.name, label="simulation")
        self.space = await self.spaces.CreateSpace(mmu_pb2.CreateSpaceRequest(space=wanted))
        request = mmu_pb2.MapRangeRequest(
            handle=self.space.handle,
            address=self.BASE,
            size_bytes=self.COUNT * PAGE,
            protection=mmu_pb2.Protection(read=True, write=True),
            fixed=True,
        )
        await self.spaces.MapRange(request)

    async def run(self) -> None:
        """Writes and reads pages, for ever."""
        while True:
            await asyncio.sleep(self.rng.randint(1, 200) / 1000)
            for _ in range(4):
                number = self.rng.randrange(self.COUNT)
                try:
                    await (self.write(number) if self.rng.random() < 0.6 else self.read(number))
                except grpc.aio.AioRpcError:
                    continue

    async def write(self, number: int) -> None:
        """Writes a page; until that is known to have worked the page may have either content."""
        data = self.rng.bytes(64) * (PAGE // 64)
        before = self.possible[number]
        self.possible[number] = before | {data}
        request = mmu_pb2.WriteSpaceRequest(
            handle=self.space.handle, address=self.BASE + number * PAGE, data=data, force=False
        )
        await self.spaces.WriteSpace(request)
        self.possible[number] = {data}

    async def read(self, number: int) -> None:
        """Reads a page and compares."""
        request = mmu_pb2.ReadSpaceRequest(handle=self.space.handle, address=self.BASE + number * PAGE, size_bytes=PAGE)
        data = (await self.spaces.ReadSpace(request)).data
        assert data in self.possible[number], f"page {number} was lost: it reads {data[:16].hex()}…"
        self.possible[number] = {data}

    async def verify(self) -> None:
        """Reads every page."""
        for number in range(self.COUNT):
            await self.read(number)

    async def remove(self) -> None:
        """Deletes space and group."""
        await self.spaces.DeleteSpace(mmu_pb2.DeleteSpaceRequest(handle=self.space.handle))
        await self.groups.DeleteGroup(mmu_pb2.DeleteGroupRequest(name=self.group.name))


class Frames:
    """Two devices on a switch that greet each other."""

    SWITCH = "hosts/h1/switches/sim"

    def __init__(self, client: Any, rng: Rng) -> None:
        self.switches = client.stub("vswitch", vswitch_pb2_grpc.SwitchesStub)
        self.ports = client.stub("vswitch", vswitch_pb2_grpc.PortsStub)
        self.rng = rng

    async def prepare(self) -> None:
        """Makes switch, group and ports."""
        await self.switches.CreateSwitch(vswitch_pb2.CreateSwitchRequest(switch_id="sim"))
        group = vswitch_pb2.CreatePortGroupRequest(parent=self.SWITCH, port_group_id="g")
        name = (await self.switches.CreatePortGroup(group)).name
        self.made = [
            await self.ports.CreatePort(
                vswitch_pb2.CreatePortRequest(parent=self.SWITCH, port_id=port, port=vswitch_pb2.Port(port_group=name))
            )
            for port in ("alice", "bob")
        ]

    async def run(self) -> None:
        """Greets, for ever."""
        while True:
            with contextlib.suppress(*FAILURES):
                await self.greet()
            await asyncio.sleep(self.rng.randint(100, 2000) / 1000)

    async def greet(self) -> None:
        """Plugs both in; a broadcast arrives byte for byte, and its answer."""
        plugs = [Plug(self.ports, port.handle) for port in self.made]
        alice, bob = plugs
        try:
            for plug in plugs:
                await plug.opened()
            hello, reply = frame(BROADCAST, ALICE, "anybody?"), frame(ALICE, BOB, "bob")
            alice.send(hello)
            assert await bob.receive() == [hello]
            bob.send(reply)
            assert await alice.receive() == [reply]
        finally:
            for plug in plugs:
                plug.close()
            await asyncio.sleep(0.01)

    async def works(self) -> None:
        """Greets now that nothing fails."""
        await self.greet()

    async def remove(self) -> None:
        """Deletes the switch with everything in it."""
        await self.switches.DeleteSwitch(vswitch_pb2.DeleteSwitchRequest(name=self.SWITCH, force=True))
