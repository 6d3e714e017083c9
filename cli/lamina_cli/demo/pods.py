"""Chapters 3 to 5: a deployment of three replicas, its memory, and its healing and scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lamina_cli.client.client import Client, recorder
from lamina_cli.client.pagination import collect
from lamina_cli.demo import cluster
from lamina_cli.demo.images import Built
from lamina_cli.demo.story import Story
from lamina_cli.output import objects, printing
from lamina_cli.output.enum_words import last
from lamina_kit.errors import NotFound

DEPLOYMENT = "hello"
REPLICAS = 3
POD_NAME = "io.kubernetes.pod.name"
SIGKILL = 9
FRAME_SHIFT = 12


@dataclass(frozen=True)
class Running:
    """A pod's first process: who it is to the runtime, and its address space."""

    pod: str
    container: str
    pid: int
    space: str
    context: str

    @property
    def host(self) -> str:
        """The host that it runs on."""
        return self.space.split("/")[1]


async def deploy(story: Story, client: Client, built: Built, manifest: str) -> str:
    """Applies the deployment and shows that its pods run the program. Returns the id of the apply's trace."""
    from lamina.orchestrator.v1 import orchestrator_pb2 as pb
    from lamina.orchestrator.v1 import orchestrator_pb2_grpc as services

    from lamina_kit.telemetry import trace

    story.chapter(f"A deployment of {REPLICAS} replicas: scheduled, started, demand-paged, printing")
    stub = client.stub("orchestrator", services.ObjectsStub)
    with trace.begin("lamina apply", client.recorder or recorder()) as context:
        await stub.ApplyObjects(pb.ApplyObjectsRequest(manifest=manifest))
    pods = await cluster.until(client, "Pod", cluster.ready_pods(REPLICAS), f"{REPLICAS} pods to be ready")
    show_pods(story, pods)
    story.equal(f"{REPLICAS} pods are ready", len(pods), REPLICAS)
    placed = [value["spec"].get("nodeName") for value in pods.values()]
    story.check("the scheduler placed each on a node", all(placed), str(placed))
    for name in sorted(pods):
        text = await cluster.first_line(client, name)
        story.show(f"{name}: {text}")
        story.check(
            "its log is the program's own output, with the pod's name in it",
            name in text and told_by(built.elf, text, name),
            repr(text),
        )
    await show_processes(story, client)
    return context.trace_id


def told_by(elf: bytes, text: str, name: str) -> bool:
    """Says whether what a line says before the pod's name stands in the program."""
    said = text.partition(name)[0]
    return bool(said) and said.encode() in elf


def show_pods(story: Story, pods: cluster.Objects) -> None:
    """Prints the pods as `lamina get pods` does."""
    kind = objects.kind_of("pod")
    story.table(("NAME", *kind.headers), ((name, *kind.row(value)) for name, value in sorted(pods.items())))


async def running(client: Client) -> list[Running]:
    """Returns the first process of each running container of the deployment's pods, by pod."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc as services

    found = []
    for at in client.everywhere():
        stub = at.stub("container-runtime", services.ContainersStub)
        for container in await collect(stub.ListContainers, pb.ListContainersRequest(), "containers"):
            labels = {label.key: label.value for label in container.labels}
            if container.state != pb.Container.STATE_RUNNING or POD_NAME not in labels:
                continue
            listed = await stub.ListProcesses(pb.ListProcessesRequest(container=container.name))
            process = listed.processes[0]
            found.append(Running(labels[POD_NAME], container.name, process.pid, process.space, process.context))
    return sorted(found, key=lambda item: item.pod)


async def show_processes(story: Story, client: Client) -> None:
    """Shows the pods' processes with their spaces and what they cost."""
    from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc, ranges_pb2

    rows = []
    came: dict[str, int] = {}
    for process in await running(client):
        spaces = client.at(process.space).stub("mmu", mmu_pb2_grpc.SpacesStub)
        space = await spaces.GetSpace(mmu_pb2.GetSpaceRequest(name=process.space))
        used = await spaces.GetSpaceStatistics(ranges_pb2.GetSpaceStatisticsRequest(name=process.space))
        rows.append((process.pod, last(process.space), space))
        came[space.name] = space.minor_faults + space.major_faults + used.around_pages
    story.table(
        ("POD", "SPACE", "PAGE TABLE ROOT", "RESIDENT", "TABLES", "MINOR FAULTS", "COW FAULTS"),
        (
            (
                pod,
                name,
                f"{space.root_address:#x}",
                printing.size(space.resident_pages << FRAME_SHIFT),
                space.table_frames,
                space.minor_faults,
                space.cow_faults,
            )
            for pod, name, space in rows
        ),
    )
    roots = {(space.name.split("/")[1], space.root_address) for _, _, space in rows}
    story.equal("each has an address space of its own", len(roots), REPLICAS)
    story.check(
        "its pages came by faults, on demand",
        all(0 < space.resident_pages <= came[space.name] for _, _, space in rows),
        ", ".join(f"{space.resident_pages} pages, {space.minor_faults} faults" for _, _, space in rows),
    )


async def isolation(story: Story, client: Client) -> None:
    """Shows one virtual address in two pods: data in different frames, program text in the same one."""
    story.chapter("The same virtual address in two pods")
    first, second = neighbours(await running(client))
    data, text = await addresses(client, first)
    for address, what in ((data, "data"), (text, "text")):
        one, other = await explain(client, first, address), await explain(client, second, address)
        story.show(f"{address:#x} ({what})")
        story.table(
            ("POD", "PAGE", "OFFSET", "FRAME", "ENTRY", "BITS"),
            (
                (
                    process.pod,
                    f"{where.page_number:#x}",
                    f"{where.offset:#x}",
                    f"{where.frame:#x}",
                    f"{where.steps[-1].entry:#x}",
                    " ".join(where.steps[-1].bits),
                )
                for process, where in ((first, one), (second, other))
            ),
        )
        if what == "data":
            apart = (first.host, one.frame) != (second.host, other.frame)
            story.check(
                "each pod has it in a frame of its own", bool(one.frame and other.frame and apart), hex(one.frame)
            )
        elif first.host != second.host:
            story.show(f"they run on {first.host} and {second.host}: each host has the program's text in its own RAM")
        else:
            story.check("both share the frame of the program's text", one.frame == other.frame != 0, hex(other.frame))
        await in_ram(
            story, client, [(first.space, step) for step in one.steps] + [(second.space, step) for step in other.steps]
        )


def neighbours(processes: list[Running]) -> tuple[Running, Running]:
    """Returns two of the processes, on one host if any host has two."""
    for position, first in enumerate(processes):
        for second in processes[position + 1 :]:
            if first.host == second.host:
                return first, second
    return processes[0], processes[1]


async def addresses(client: Client, process: Running) -> tuple[int, int]:
    """Returns an address of data that the program has written, and one of its text; both pages are in RAM."""
    from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc

    stub = client.at(process.space).stub("mmu", mmu_pb2_grpc.SpacesStub)
    mappings = (await stub.ListMappings(mmu_pb2.ListMappingsRequest(name=process.space))).mappings
    writable = [item for item in mappings if item.protection.write and not item.grows_down]
    executable = [item for item in mappings if item.protection.execute]
    return await in_memory(client, process, writable, written=True), await in_memory(client, process, executable)


async def in_memory(client: Client, process: Running, mappings: list[Any], *, written: bool = False) -> int:
    """Returns the first page of some mappings that is in RAM; with `written`, that is the process's own copy.

    Raises:
        NotFound: `NOTHING_RESIDENT`, there is none.
    """
    from lamina.mmu.v1 import mmu_pb2

    for mapping in mappings:
        for address in range(mapping.start, mapping.end, 1 << FRAME_SHIFT):
            where = await explain(client, process, address)
            resident = where.residency == mmu_pb2.TranslateResponse.RESIDENCY_RAM
            if resident and not (written and where.copy_on_write):
                return address
    raise NotFound(
        f"no page of {len(mappings)} mappings of {process.pod} is in RAM",
        reason="NOTHING_RESIDENT",
        next_step=f"`lamina mmu maps {process.space}` shows what is mapped",
    )


async def explain(client: Client, process: Running, address: int) -> Any:
    """Returns the MMU's explanation of an address of a process."""
    from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc

    stub = client.at(process.space).stub("mmu", mmu_pb2_grpc.SpacesStub)
    return await stub.Translate(mmu_pb2.TranslateRequest(name=process.space, address=address))


async def in_ram(story: Story, client: Client, steps: list[tuple[str, Any]]) -> None:
    """Checks that each entry of walks of spaces stands in RAM, read through the hardware and not through the MMU."""
    from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc

    same = 0
    for space, step in steps:
        memory = client.at(space).stub("hardware", hardware_pb2_grpc.MemoryStub)
        read = await memory.ReadMemory(hardware_pb2.ReadMemoryRequest(address=step.entry_address, size_bytes=8))
        same += int.from_bytes(read.data, "little") == step.entry
    story.equal(f"all {len(steps)} table entries on the way are bytes in the host's RAM", same, len(steps))


async def healing(story: Story, client: Client) -> None:
    """Kills a process, waits for its successor, and scales."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc as services

    story.chapter("A process is killed and replaced; the deployment is scaled to 5 and back to 2")
    victim = (await running(client))[0]
    stub = client.at(victim.container).stub("container-runtime", services.ContainersStub)
    await stub.KillContainer(pb.KillContainerRequest(name=victim.container, signal=SIGKILL, pid=victim.pid))
    story.show(f"killed process {victim.pid} of {victim.pod} (space {last(victim.space)})")

    def healed(pods: cluster.Objects) -> bool:
        pod = pods.get(victim.pod)
        statuses = pod.get("status", {}).get("containerStatuses", []) if pod else []
        return cluster.ready_pods(REPLICAS)(pods) and (not statuses or statuses[0]["restartCount"] > 0)

    pods = await cluster.until(client, "Pod", healed, "the killed process to be replaced")
    show_pods(story, pods)
    spaces = [item.space for item in await running(client)]
    story.check(
        f"the orchestrator noticed and replaced it: {REPLICAS} run again, in spaces that are not the dead one's",
        len(spaces) == REPLICAS and victim.space not in spaces,
        str(spaces),
    )
    for replicas in (5, 2):
        await cluster.scale(client, DEPLOYMENT, replicas)
        pods = await cluster.until(client, "Pod", cluster.ready_pods(replicas), f"{replicas} pods")
        show_pods(story, pods)
        count = len(await running(client))
        story.equal(f"scaled to {replicas}: as many processes run on the modelled cores", count, replicas)
        for pod in pods:  # before its first line it has no handler yet, and PID 1 ignores SIGTERM without one
            await cluster.first_line(client, pod)
