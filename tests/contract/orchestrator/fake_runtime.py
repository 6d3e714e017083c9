"""A container runtime without processes: containers live as long as their image's profile says.

It behaves as a real one at the port: images have to be there, starting takes time, SIGTERM is obeyed or not, restarts
of the runtime keep or lose containers, and calls fail while it is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition, LaminaError, NotFound, OutOfRange, Unavailable
from lamina_orchestrator.domain.pods.containers import (
    CREATED,
    EXITED,
    REMOVED,
    RUNNING,
    ContainerSpec,
    ContainerState,
    Image,
    SandboxSpec,
    SandboxState,
)
from lamina_orchestrator.io.runtimes.runtime import STDOUT, LogChunk


@dataclass(frozen=True, slots=True)
class Profile:
    """How containers of an image behave.

    They run for `life_ns` (0: until stopped) and end with `exit_code`. Starting takes `start_ns`; after SIGTERM they
    take `stop_ns` and end with 143; `stop_ns` beyond the grace period gets them killed (137). `output` is their log.
    """

    life_ns: int = 0
    exit_code: int = 0
    start_ns: int = 0
    stop_ns: int = 0
    output: bytes = b""


@dataclass(slots=True)
class _Running:
    state: ContainerState
    profile: Profile
    spec: ContainerSpec
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    life: asyncio.Task[None] | None = None


class FakeRuntime:
    """A runtime; see `runtime.Runtime`. `host` is part of the names that it gives."""

    def __init__(self, clock: Clock, host: str = "h1") -> None:
        self._clock = clock
        self._host = host
        self.images: dict[str, Profile] = {}
        self.sandboxes: dict[str, SandboxState] = {}
        self.specs: dict[str, SandboxSpec] = {}
        self._containers: dict[str, _Running] = {}
        self._made: dict[tuple[str, ...], str] = {}
        self._events: list[tuple[int, ContainerState]] = []
        self._news = asyncio.Event()
        self._revision = 0
        self._number = 0
        self._away = False
        self._faults: dict[str, list[LaminaError]] = {}
        self.calls: dict[str, int] = {}

    # ── what a test does to it ───────────────────────────────────────────────────────────────────────────────────────

    def containers(self, state: str = "") -> list[ContainerState]:
        """The containers in a state, or all, in the order of their names."""
        found = [self._containers[name].state for name in sorted(self._containers)]
        return [one for one in found if not state or one.state == state]

    @property
    def history(self) -> list[ContainerState]:
        """Every change of a container, oldest first."""
        return [state for _, state in self._events]

    def spec_of(self, name: str) -> ContainerSpec:
        """What a container was created from."""
        return self._containers[name].spec

    def fail(self, call: str, error: LaminaError, times: int = 1) -> None:
        """Lets the next calls of a method fail."""
        self._faults.setdefault(call, []).extend([error] * times)

    def kill(self, name: str, exit_code: int = 137, reason: str = "Error") -> None:
        """Ends a container from outside."""
        self._exit(self._containers[name], exit_code, reason)

    def go_away(self) -> None:
        """The runtime does not answer: streams break, calls fail."""
        self._away = True
        self._wake()

    def come_back(self, *, lose: bool = False) -> None:
        """The runtime answers again; with `lose`, its containers died with it."""
        self._away = False
        if lose:
            for running in list(self._containers.values()):
                if running.state.state == RUNNING:
                    self._exit(running, 137, "RUNTIME_RESTARTED")
            for name, sandbox in self.sandboxes.items():
                self.sandboxes[name] = replace(sandbox, ready=False)

    # ── the port ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def hello(self) -> None:
        """Answers unless it is away."""
        self._enter("hello")

    async def resolve_image(self, reference: str) -> Image:
        """The image of a reference."""
        self._enter("resolve_image")
        if reference not in self.images:
            raise NotFound(f"There is no image {reference}.", reason="IMAGE_UNKNOWN", next_step="Import it.")
        return Image(reference, f"sha256:{reference}")

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxState:
        """Creates a sandbox."""
        self._enter("run_sandbox")
        known = self._made.get((spec.pod_uid, str(spec.attempt)))
        if known in self.sandboxes:
            return self.sandboxes[str(known)]
        name = self._name("sandboxes")
        self._made[(spec.pod_uid, str(spec.attempt))] = name
        self.specs[name] = spec
        self.sandboxes[name] = SandboxState(name, spec.pod_uid, spec.attempt, True, self._clock.wall_ns())
        return self.sandboxes[name]

    async def stop_sandbox(self, name: str) -> None:
        """Kills what runs in a sandbox."""
        self._enter("stop_sandbox")
        if name not in self.sandboxes:
            raise NotFound(f"There is no sandbox {name}.", reason="SANDBOX_UNKNOWN")
        for running in self._in(name):
            self._exit(running, 137, "Error")
        self.sandboxes[name] = replace(self.sandboxes[name], ready=False)

    async def remove_sandbox(self, name: str) -> None:
        """Removes a sandbox and its containers."""
        self._enter("remove_sandbox")
        for running in self._in(name):
            self._drop(running)
        self.sandboxes.pop(name, None)

    async def list_sandboxes(self) -> list[SandboxState]:
        """All sandboxes."""
        self._enter("list_sandboxes")
        return [self.sandboxes[name] for name in sorted(self.sandboxes)]

    async def create_container(self, sandbox: str, pod_uid: str, spec: ContainerSpec) -> ContainerState:
        """Creates a container."""
        self._enter("create_container")
        place = self.sandboxes.get(sandbox)
        if place is None:
            raise NotFound(f"There is no sandbox {sandbox}.", reason="SANDBOX_UNKNOWN")
        if not place.ready:
            raise FailedPrecondition(f"Sandbox {sandbox} is not ready.", reason="SANDBOX_NOT_READY")
        key = (pod_uid, spec.name, str(spec.attempt))
        known = self._containers.get(self._made.get(key, ""))
        if known is not None:
            return known.state
        name = self._name("containers")
        self._made[key] = name
        now = self._clock.wall_ns()
        state = ContainerState(
            name, sandbox, pod_uid, spec.name, spec.attempt, CREATED, spec.image, f"sha256:{spec.image}", created_ns=now
        )
        self._containers[name] = _Running(state, self.images.get(spec.image, Profile()), spec)
        self._tell(state)
        return state

    async def start_container(self, name: str) -> ContainerState:
        """Starts a container."""
        self._enter("start_container")
        running = self._find(name)
        if running.state.state != CREATED:
            raise FailedPrecondition(f"Container {name} was started before.", reason="CONTAINER_NOT_CREATED")
        if running.profile.start_ns:
            await self._clock.sleep_ns(running.profile.start_ns)
            self._enter("start_container")
        running.state = replace(running.state, state=RUNNING, started_ns=self._clock.wall_ns())
        self._tell(running.state)
        if running.profile.life_ns:
            running.life = asyncio.get_running_loop().create_task(self._live(running))
        return running.state

    async def stop_container(self, name: str, grace_ns: int) -> ContainerState:
        """Stops a container, by force after the grace period."""
        self._enter("stop_container")
        running = self._find(name)
        if running.state.state == EXITED:
            return running.state
        obeys = running.profile.stop_ns <= grace_ns and grace_ns > 0
        await self._clock.sleep_ns(running.profile.stop_ns if obeys else grace_ns)
        self._exit(running, 143 if obeys else 137, "Error")
        return running.state

    async def remove_container(self, name: str) -> None:
        """Removes a container."""
        self._enter("remove_container")
        if name in self._containers:
            self._drop(self._containers[name])

    async def list_containers(self) -> tuple[list[ContainerState], int]:
        """All containers and the revision to watch from."""
        self._enter("list_containers")
        return self.containers(), self._revision

    async def watch_containers(self, revision: int) -> AsyncIterator[ContainerState]:
        """Changes of containers."""
        self._enter("watch_containers")
        if revision > self._revision:
            raise OutOfRange(f"Revision {revision} does not exist yet.", reason="REVISION_FUTURE")
        while True:
            for number, state in self._events[revision:]:
                revision = number
                yield state
            if self._away:
                raise self._unavailable()
            if revision == self._revision:
                await self._news.wait()

    async def read_logs(self, name: str, follow: bool, tail_lines: int | None) -> AsyncIterator[LogChunk]:
        """The profile's output; with `follow` it ends when the container does."""
        self._enter("read_logs")
        running = self._find(name)
        lines = running.profile.output.splitlines(keepends=True)
        for line in lines if tail_lines is None else lines[len(lines) - min(tail_lines, len(lines)) :]:
            yield LogChunk(line, STDOUT, running.state.started_ns)
        if follow and running.state.state != EXITED:
            await running.ended.wait()

    async def close(self) -> None:
        """Keeps everything: only the connection ends."""

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, call: str) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1
        if self._away:
            raise self._unavailable()
        faults = self._faults.get(call)
        if faults:
            raise faults.pop(0)

    def _unavailable(self) -> Unavailable:
        return Unavailable(f"The runtime of {self._host} is away.", reason="RUNTIME_AWAY", next_step="Try again later.")

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"hosts/{self._host}/{kind}/{self._number:06d}"

    def _find(self, name: str) -> _Running:
        running = self._containers.get(name)
        if running is None:
            raise NotFound(f"There is no container {name}.", reason="CONTAINER_UNKNOWN")
        return running

    def _in(self, sandbox: str) -> list[_Running]:
        return [one for one in list(self._containers.values()) if one.state.sandbox == sandbox]

    async def _live(self, running: _Running) -> None:
        await self._clock.sleep_ns(running.profile.life_ns)
        reason = "Completed" if running.profile.exit_code == 0 else "Error"
        self._exit(running, running.profile.exit_code, reason)

    def _exit(self, running: _Running, exit_code: int, reason: str) -> None:
        if running.state.state == EXITED:
            return
        now = self._clock.wall_ns()
        running.state = replace(running.state, state=EXITED, exit_code=exit_code, reason=reason, finished_ns=now)
        running.ended.set()
        self._tell(running.state)

    def _drop(self, running: _Running) -> None:
        self._exit(running, 137, "Error")
        if running.life is not None:
            running.life.cancel()
        del self._containers[running.state.name]
        self._tell(replace(running.state, state=REMOVED))

    def _tell(self, state: ContainerState) -> None:
        self._revision += 1
        self._events.append((self._revision, state))
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
