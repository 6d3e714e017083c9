"""The physical faults of a layer: what can break, what is broken, and until when.

    state.faults.register(FaultKind("core-lost", CORE, "…", inject=self._lose, clear=self._return))

A layer registers its kinds in its constructor; the kit serves the table as `lamina.common.v1.Faults` beside every layer
(`faults/service.py`). Life of a fault: ACTIVE → CLEARED | EXPIRED, or DONE at once for a kind that does not last. Each
step is an event on the object that is broken. ADR 0010.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition, InvalidArgument, LaminaError, NotFound, ResourceExhausted
from lamina_kit.faults.kinds import Breakage, Effects, FaultKind
from lamina_kit.rng import Rng
from lamina_kit.telemetry.events import EventLog

MAX_ACTIVE = 1000
MAX_ENDED = 1000


class FaultState(enum.Enum):
    """Where a fault stands."""

    ACTIVE = "active"
    CLEARED = "cleared"
    EXPIRED = "expired"
    DONE = "done"


@dataclass(frozen=True)
class Wish:
    """A fault that somebody wants, as it was asked for."""

    kind: str
    object: str
    parameters: tuple[tuple[str, str], ...] = ()
    duration_ns: int = 0


@dataclass
class Fault:
    """One fault. `number` counts from 1 in the order of injection; times in nanoseconds since the stack's start."""

    number: int
    wish: Wish
    breakage: Breakage
    kind: FaultKind
    start_ns: int
    cause: str
    request_id: str = ""
    state: FaultState = FaultState.ACTIVE
    end_ns: int = 0
    effects: tuple[tuple[str, str], ...] = ()
    timer: asyncio.Task[None] | None = field(default=None, repr=False)
    clearing: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Resource name."""
        return self.breakage.name

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """All parameters in the order of the kind, as text."""
        both: Mapping[str, object] = {**self.breakage.numbers, **self.breakage.choices}
        return tuple((parameter.key, str(both[parameter.key])) for parameter in self.kind.parameters)


class FaultTable:
    """The kinds and the faults of one layer on one host (`host` empty: the orchestrator)."""

    def __init__(self, host: str, clock: Clock, rng: Rng, events: EventLog) -> None:
        self._host = host
        self._clock = clock
        self._rng = rng
        self._events = events
        self._kinds: dict[str, FaultKind] = {}
        self._faults: dict[str, Fault] = {}
        self._requests: dict[str, tuple[Wish, asyncio.Task[Fault]]] = {}
        self._tasks: dict[asyncio.Task[Fault], None] = {}
        self._held: dict[tuple[str, str, str], None] = {}
        self._count = 0

    # ── kinds ────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, kind: FaultKind) -> None:
        """Adds a way to break; two of one name are a defect."""
        if kind.name in self._kinds:
            raise ValueError(f"the kind of fault {kind.name} is registered twice")
        self._kinds[kind.name] = kind

    def kinds(self) -> list[FaultKind]:
        """Returns the kinds in alphabetical order."""
        return [self._kinds[name] for name in sorted(self._kinds)]

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def inject(self, wish: Wish, request_id: str = "", cause: str = "") -> Fault:
        """Breaks something; returns the fault once it is in effect, also when the caller gives up meanwhile.

        Raises what `Faults.InjectFault` documents.
        """
        known = self._requests.get(request_id) if request_id else None
        if known is not None:
            if known[0] != wish:
                raise InvalidArgument(
                    f"The request id {request_id} came with another fault before.",
                    reason="REQUEST_ID_REUSED",
                    next_step="Take a new request id for a new fault.",
                )
            return await asyncio.shield(known[1])
        task = asyncio.get_running_loop().create_task(self._begin(wish, request_id, cause))
        self._tasks[task] = None
        task.add_done_callback(self._begun)
        if request_id:
            self._requests[request_id] = (wish, task)
        return await asyncio.shield(task)

    async def clear(self, name: str) -> Fault:
        """Ends a fault; one that has ended is returned as it is.

        Raises `NotFound` `FAULT_UNKNOWN`, `FailedPrecondition` `FAULT_NOT_CLEARABLE`.
        """
        fault = self.get(name)
        if not fault.kind.lasting:
            raise FailedPrecondition(
                f"{name} cannot be cleared: {fault.kind.name} happens once and has nothing to end.",
                reason="FAULT_NOT_CLEARABLE",
            )
        await self._end(fault, FaultState.CLEARED)
        return fault

    def get(self, name: str) -> Fault:
        """Returns a fault. Raises `NotFound` `FAULT_UNKNOWN`."""
        fault = self._faults.get(name)
        if fault is None:
            raise NotFound(
                f"There is no fault {name}.", reason="FAULT_UNKNOWN", next_step="List them; old ones are forgotten."
            )
        return fault

    def list(self, *, active_only: bool = False, object: str = "", after: int = 0) -> list[Fault]:
        """Returns the faults behind number `after`, in the order of injection."""
        return [
            fault
            for fault in self._faults.values()
            if fault.number > after
            and (not active_only or fault.state is FaultState.ACTIVE)
            and (not object or fault.breakage.object == object)
        ]

    def active(self, kind: str, object: str, part: str = "") -> Fault | None:
        """Returns the active fault of one kind on one object, or on a part of it."""
        for fault in self._faults.values():
            place = fault.kind.name, fault.breakage.object, fault.kind.part(fault.breakage)
            if fault.state is FaultState.ACTIVE and place == (kind, object, part):
                return fault
        return None

    def gone(self, object: str) -> None:
        """Ends the faults of an object that does not exist any more, without undoing anything."""
        for fault in self.list(active_only=True, object=object):
            self._ended(fault, FaultState.CLEARED, cause=object)

    async def clear_all(self) -> int:
        """Ends every active fault in the order of injection; returns how many."""
        found = self.list(active_only=True)
        for fault in found:
            await self._end(fault, FaultState.CLEARED)
        return len(found)

    def close(self) -> None:
        """Stops the clocks of faults; for the end of the layer."""
        for fault in self._faults.values():
            if fault.timer is not None:
                fault.timer.cancel()
        for task in list(self._tasks):
            task.cancel()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _begin(self, wish: Wish, request_id: str, cause: str) -> Fault:
        kind = self._kinds.get(wish.kind)
        if kind is None:
            raise NotFound(
                f"This layer has no kind of fault {wish.kind[:80]!r}.",
                reason="FAULT_KIND_UNKNOWN",
                next_step=f"Its kinds are {', '.join(sorted(self._kinds)) or 'none'}.",
            )
        breakage = kind.check(self._new_name(), wish.object, wish.parameters, wish.duration_ns)
        held = kind.name, wish.object, kind.part(breakage)
        self._check_room(kind, held)
        if kind.lasting:  # any number that happen once may be under way
            self._held[held] = None
        try:
            found = kind.inject(breakage)
            effects: Effects = await found if inspect.isawaitable(found) else found
        finally:
            if kind.lasting:
                del self._held[held]
        self._count += 1
        fault = Fault(self._count, wish, breakage, kind, self._clock.now_ns(), cause, request_id)
        fault.effects = tuple(sorted((key, str(value)) for key, value in effects.items()))
        self._keep(fault)
        return fault

    def _check_room(self, kind: FaultKind, held: tuple[str, str, str]) -> None:
        active = self.active(*held)
        if kind.lasting and (active is not None or held in self._held):
            raise FailedPrecondition(
                f"{held[1]}{held[2] and f', {held[2]},'} has the fault {kind.name} already"
                f"{f', {active.name}' if active else ''}.",
                reason="FAULT_ACTIVE",
                next_step="Clear that one first, or wait for its end.",
            )
        if len(self.list(active_only=True)) >= MAX_ACTIVE:
            raise ResourceExhausted(
                f"{MAX_ACTIVE} faults are active.", reason="FAULTS_TOO_MANY", next_step="Clear some of them."
            )

    def _keep(self, fault: Fault) -> None:
        """Takes a fault that is in effect into the table; forgets the oldest ended ones."""
        self._faults[fault.name] = fault
        self._note(fault, "fault.injected", fault.cause, **dict(fault.effects))
        if not fault.kind.lasting:
            fault.state = FaultState.DONE
            fault.end_ns = fault.start_ns
        elif fault.wish.duration_ns:
            fault.end_ns = fault.start_ns + fault.wish.duration_ns
            fault.timer = asyncio.get_running_loop().create_task(self._expire(fault))
        ended = [entry for entry in self._faults.values() if entry.state is not FaultState.ACTIVE]
        for old in ended[: max(0, len(ended) - MAX_ENDED)]:
            del self._faults[old.name]
            self._requests.pop(old.request_id, None)

    async def _expire(self, fault: Fault) -> None:
        await self._clock.sleep_ns(fault.wish.duration_ns)
        try:
            await self._end(fault, FaultState.EXPIRED)
        except LaminaError as error:
            self._note(fault, "fault.stuck", fault.name, reason=error.reason)

    async def _end(self, fault: Fault, state: FaultState) -> None:
        """Undoes a fault, once, also when the caller gives up meanwhile; a second caller waits for the first."""
        if fault.state is not FaultState.ACTIVE:
            return
        if fault.clearing is None:
            fault.clearing = asyncio.get_running_loop().create_task(self._undo(fault, state))
        await asyncio.shield(fault.clearing)

    async def _undo(self, fault: Fault, state: FaultState) -> None:
        try:
            if fault.kind.clear is not None:
                done = fault.kind.clear(fault.breakage)
                if done is not None:
                    await done
        except BaseException:
            fault.clearing = None
            raise
        self._ended(fault, state, cause=fault.name)

    def _ended(self, fault: Fault, state: FaultState, cause: str) -> None:
        if fault.state is not FaultState.ACTIVE:
            return
        fault.state = state
        fault.end_ns = self._clock.now_ns()
        if fault.timer is not None and state is FaultState.CLEARED:
            fault.timer.cancel()
        fault.timer = None
        self._note(fault, f"fault.{state.value}", cause)

    def _begun(self, task: asyncio.Task[Fault]) -> None:
        """Forgets the request id of a fault that did not come about: a repetition may find things changed."""
        self._tasks.pop(task, None)
        if task.cancelled() or task.exception() is not None:
            for request_id in [key for key, (_, owner) in self._requests.items() if owner is task]:
                del self._requests[request_id]

    def _note(self, fault: Fault, event: str, cause: str, **inputs: object) -> None:
        details: dict[str, object] = {f"effect_{key}": value for key, value in inputs.items()}
        details["fault"] = fault.name
        details["kind"] = fault.kind.name
        details["parameters"] = " ".join(f"{key}={value}" for key, value in fault.parameters)
        details["duration_ns"] = fault.wish.duration_ns
        self._events.record(fault.breakage.object, event, cause=cause, rule="", **details)

    def _new_name(self) -> str:
        parent = f"hosts/{self._host}/" if self._host else ""
        while (name := f"{parent}faults/{self._rng.id('f')}") in self._faults:
            pass
        return name
