"""The model engine: sandboxes and containers on the container kernel. Pure; the shell drives its steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from lamina_container_runtime.domain.containers import container as states
from lamina_container_runtime.domain.containers.container import (
    ContainerEvent,
    ContainerRecord,
    ContainerSpec,
    ContainerState,
)
from lamina_container_runtime.domain.containers.process_info import ProcessInfo
from lamina_container_runtime.domain.containers.sandbox import SandboxRecord, SandboxSpec, SandboxState
from lamina_container_runtime.domain.wait import WaitQueue
from lamina_container_runtime.engines.interface import Ports
from lamina_container_runtime.engines.model.containers import Containers
from lamina_container_runtime.engines.model.kernel.kernel import Kernel
from lamina_container_runtime.engines.model.kernel.main_loop import MainLoop
from lamina_container_runtime.engines.model.process_list import list_processes
from lamina_container_runtime.engines.model.sandboxes import Sandboxes
from lamina_container_runtime.engines.model.syscalls.dispatch import dispatch
from lamina_kit.effects import Step


class ModelEngine:
    """Runs containers on the modelled cores and the modelled memory. See `engines/interface.py`."""

    name: ClassVar[str] = "model"
    capabilities: ClassVar[tuple[str, ...]] = (
        "cgroups",
        "exec.static-elf",
        "images.docker-archive",
        "images.oci",
        "namespaces.mnt",
        "namespaces.pid",
        "namespaces.uts",
    )

    @classmethod
    def missing(cls) -> list[str]:
        """Returns nothing: this engine needs no privileges and no kernel feature."""
        return []

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self.kernel = Kernel(
            ports.clock,
            ports.rng.child("kernel"),
            ports.memory,
            ports.kick,
            ports.record,
            lambda container_id: f"hosts/{ports.host}/containers/{container_id}",
            ports.span,
        )
        self._sandboxes = Sandboxes(ports)
        self._containers = Containers(ports, self.kernel, MainLoop(dispatch), self._sandboxes)

    def describe_host(self, memory_bytes: int, cores: int) -> None:
        """Tells what programs see of the host."""
        self.kernel.total_memory = memory_bytes
        self.kernel.cores = cores

    def recover(self) -> Step[None]:
        """Ends what the old runtime left running and makes its sandboxes not ready."""
        for record in self._containers.all():
            if record.state is ContainerState.RUNNING:
                ended = states.Exit(137, states.RUNTIME_RESTARTED, "the runtime ended while the container ran")
                self._containers.finish(record, ended)
                self._ports.record(
                    self.kernel.name_of(record.container_id),
                    "container.recovered",
                    rule="running in the records, no process in this kernel",
                    reason=states.RUNTIME_RESTARTED,
                )
        for sandbox in self._sandboxes.all():
            self._sandboxes.set_not_ready(sandbox)
        return
        yield

    def holds(self) -> tuple[bool, bool]:
        """Returns whether there must be something of this runtime's in the hardware, and in the MMU."""
        ready = any(sandbox.state is SandboxState.READY for sandbox in self._sandboxes.all())
        return ready, ready or bool(self.kernel.objects.names())

    def host_rebooted(self, memory_lost: bool) -> None:
        """Ends the use of all sandboxes: their groups are gone. Their containers end by themselves, as runs fail.

        Objects at hand are forgotten when the MMU has lost them; otherwise they still belong to this runtime.
        """
        if memory_lost:
            self.kernel.objects.forget_all()
        for sandbox in self._sandboxes.all():
            self._sandboxes.set_not_ready(sandbox)

    def run_sandbox(self, spec: SandboxSpec, request_id: str) -> Step[SandboxRecord]:
        """Creates a sandbox and makes it ready."""
        return (yield from self._sandboxes.run(spec, request_id))

    def stop_sandbox(self, sandbox_id: str) -> Step[SandboxRecord]:
        """Kills what runs in a sandbox and makes it not ready."""
        yield from self._sandboxes.creations.until_made(sandbox_id)
        record = self._sandboxes.set_not_ready(self._sandboxes.get(sandbox_id))
        for container in self._containers.in_sandbox(sandbox_id):
            yield from self._containers.stop(container.container_id, 0)
        return record

    def remove_sandbox(self, sandbox_id: str) -> Step[None]:
        """Removes a sandbox with its containers."""
        yield from self._sandboxes.creations.until_made(sandbox_id)
        if self._sandboxes.find(sandbox_id) is None:
            return
        yield from self.stop_sandbox(sandbox_id)
        for container in self._containers.in_sandbox(sandbox_id):
            yield from self._containers.remove(container.container_id)
        yield from self._sandboxes.remove(sandbox_id)

    def sandbox(self, sandbox_id: str) -> SandboxRecord:
        """Returns a sandbox."""
        return self._sandboxes.get(sandbox_id)

    def sandboxes(self) -> Sequence[SandboxRecord]:
        """Returns all sandboxes in the order of their ids."""
        return self._sandboxes.all()

    def create_container(self, spec: ContainerSpec, request_id: str) -> Step[ContainerRecord]:
        """Creates a container."""
        return (yield from self._containers.create(spec, request_id))

    def start_container(self, container_id: str) -> Step[ContainerRecord]:
        """Starts a container."""
        return (yield from self._containers.start(container_id))

    def stop_container(self, container_id: str, grace_ns: int) -> Step[ContainerRecord]:
        """Stops a container."""
        return (yield from self._containers.stop(container_id, grace_ns))

    def kill_container(self, container_id: str, signal: int, pid: int) -> None:
        """Sends a signal from outside the container's PID namespace."""
        self._containers.kill(container_id, signal, pid)

    def remove_container(self, container_id: str) -> Step[None]:
        """Removes a container."""
        yield from self._containers.remove(container_id)

    def container(self, container_id: str) -> ContainerRecord:
        """Returns a container."""
        return self._containers.get(container_id)

    def containers(self) -> Sequence[ContainerRecord]:
        """Returns all containers in the order of their ids."""
        return self._containers.all()

    def wait_container(self, container_id: str) -> Step[ContainerRecord]:
        """Returns a container once it has exited."""
        return (yield from self._containers.wait(container_id))

    def processes(self, container_ids: Iterable[str]) -> Sequence[ProcessInfo]:
        """Returns the processes of containers."""
        found: list[ProcessInfo] = []
        for container_id in sorted(container_ids):
            running = self._containers.running(container_id)
            if running is not None:
                found.extend(list_processes(running))
        return found

    def revision(self) -> int:
        """Returns the revision of the newest event."""
        return self._containers.changes.revision

    def events_after(self, revision: int) -> Sequence[ContainerEvent]:
        """Returns the events after a revision."""
        return self._containers.changes.after(revision)

    def changed(self) -> WaitQueue:
        """Returns the queue that is woken at each event."""
        return self._containers.changes.queue
