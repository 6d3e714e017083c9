"""What an orchestrator engine is, and the ports that it is given.

Vocabulary
----------
*object*: desired and observed state of one thing, as its Kubernetes JSON reads. *key*: its resource, namespace and
name. *revision*: position of a write in the store, from 1; an object's resource version is the revision that wrote it.
*controller*: a pure function from what is stored to actions. *settle*: run controllers until nothing is left to do.
*effect*: what the engine wants done outside (call a node's runtime, open the stream to it); its result comes back as an
*input*. *node*: a host whose container runtime runs pods.

Preconditions
-------------
One writer: the methods of an engine are called from one task and never await. Times are Unix nanoseconds of the stack's
clock, because the objects keep time stamps across restarts; they never go back. The store belongs to the engine alone.

Capabilities
------------
An engine names what it can do (`capabilities`): `objects` (versioned store with watch), `workloads` (Deployment,
ReplicaSet), `scheduling`, `node-lifecycle`, `pod-lifecycle`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lamina_kit.effects import Step
from lamina_orchestrator.domain.kinds.kinds import Kind
from lamina_orchestrator.domain.kinds.plain_object import Key, Object
from lamina_orchestrator.domain.pods.containers import ContainerState, SandboxState
from lamina_orchestrator.domain.pods.steps import Outcome

# ── the store ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Write:
    """One write: `value` is the new text of the object at `path`, or its last text if it is `deleted`.

    `expected` is the revision of the version that it replaces, 0 for none.
    """

    path: str
    value: str
    expected: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A stored version: the revision that wrote it, the one that created the object, and its text."""

    path: str
    revision: int
    created: int
    value: str


@dataclass(frozen=True, slots=True)
class Change:
    """A write as a watcher sees it; `previous` is the text that it replaced, empty if the object was new."""

    revision: int
    path: str
    value: str
    previous: str
    deleted: bool


class Store(Protocol):
    """Texts under paths with every revision kept until it is compacted. Used by one writer; calls are synchronous."""

    @property
    def revision(self) -> int:
        """The newest revision; 0 before the first write."""

    @property
    def compacted(self) -> int:
        """The newest revision whose history is gone; changes after it can be read."""

    def commit(self, writes: Sequence[Write]) -> int:
        """Writes all or nothing, with consecutive revisions, durably; returns the newest revision.

        Raises Aborted `STORE_CONFLICT` when a path is not at its expected revision; nothing is written then.
        """

    def get(self, path: str) -> Record | None:
        """The newest version at a path, or None."""

    def list(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> list[Record]:
        """Versions of all paths with a prefix, in the order of the paths.

        As they were at `revision` (0: now), behind the path `after`, at most `limit` (0: all). Raises OutOfRange
        `REVISION_COMPACTED` or `REVISION_FUTURE`.
        """

    def changes(self, after: int, limit: int) -> Sequence[Change]:
        """Up to `limit` changes behind revision `after`, in order. Raises as `list` does."""

    def compact(self, revision: int) -> None:
        """Forgets versions that were replaced or deleted at or before `revision`. Lower than before: no effect."""

    def close(self) -> None:
        """Closes the store. Idempotent."""


# ── what an engine tells while it works ──────────────────────────────────────────────────────────────────────────────


class Journal(Protocol):
    """Where decisions and spans go."""

    def request(self) -> str:
        """The trace of the call that is being served now; empty outside a call."""

    def note(self, key: Key, event: str, cause: str, inputs: dict[str, Any]) -> None:
        """Records what happened to an object."""

    def decide(self, key: Key, event: str, rule: str, cause: str, inputs: dict[str, Any]) -> None:
        """Records a decision about an object for `Explain`."""

    def span(self, traceparent: str, name: str, **attributes: object) -> AbstractContextManager[object]:
        """A span of the trace that an object's annotation names; free of charge when it names none."""


# ── effects and inputs ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RunStep:
    """Perform a step against a node's runtime in a task of its own, under a trace, and answer with `StepDone`.

    `cause` is why the step is taken; `traceparent` the trace that the pod names, empty for a trace of the step's own.
    """

    node: str
    pod: Key
    uid: str
    name: str
    step: Step[Outcome]
    traceparent: str
    cause: str


@dataclass(frozen=True, slots=True)
class Connect:
    """Open the stream to a node's runtime and keep it open; answer with `NodeAnswers` and `NodeSilent`."""

    node: str
    address: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the stream to a node's runtime."""

    node: str


Outgoing = RunStep | Connect | Disconnect


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended."""

    node: str
    uid: str
    name: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class NodeAnswers:
    """A node's runtime answers: what it holds now. Changes follow as `ContainerSeen`."""

    node: str
    sandboxes: tuple[SandboxState, ...]
    containers: tuple[ContainerState, ...]


@dataclass(frozen=True, slots=True)
class NodeSilent:
    """The stream to a node's runtime broke, or could not be opened."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class ContainerSeen:
    """A container changed on a node."""

    node: str
    state: ContainerState


Input = StepDone | NodeAnswers | NodeSilent | ContainerSeen


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settling left: effects to perform, when to settle again (0: only when something happens), and whether
    work is left because the budget was used up."""

    effects: tuple[Outgoing, ...]
    next_ns: int
    unfinished: bool


# ── the engine ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Stored:
    """An object with its canonical text."""

    obj: Object
    text: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did with one object: `action` is `created`, `configured` or `unchanged`."""

    stored: Stored
    action: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of objects, the token of the next one (empty at the end), and the revision that it shows."""

    objects: tuple[Stored, ...]
    next_token: str
    revision: int


@dataclass(frozen=True, slots=True)
class Query:
    """Which objects of a kind: namespace (empty: all), label and field selector as texts."""

    kind: Kind
    namespace: str = ""
    labels: str = ""
    fields: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One event of a watch: `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    stored: Stored


class Cursor(Protocol):
    """A watcher's position."""

    def next(self, limit: int) -> list[WatchEvent]:
        """The events since the last call, at most about `limit`; empty when there are none yet.

        Raises OutOfRange `REVISION_COMPACTED` when the position is too old.
        """


@dataclass(frozen=True, slots=True)
class LogSource:
    """Where a container's output is: its node and the runtime's name for it."""

    node: str
    container: str


class Engine(Protocol):
    """An orchestrator. API methods raise errors of `lamina_kit.errors` as the contract documents them."""

    capabilities: ClassVar[tuple[str, ...]]

    @classmethod
    def missing(cls) -> list[str]:
        """Why the engine cannot run here; empty if it can."""

    def load(self, now_ns: int) -> None:
        """Takes in what the store holds. Called once, first."""

    def feed(self, event: Input, now_ns: int) -> None:
        """Takes in what happened outside."""

    def settle(self, now_ns: int, budget: int = 1000) -> Settled:
        """Runs controllers until nothing is left to do, or `budget` objects were looked at."""

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Calls back after every commit: watchers have something to read."""

    def apply(self, text: str, namespace: str, now_ns: int, traceparent: str, dry_run: bool) -> list[Applied]:
        """Applies a manifest."""

    def create(
        self, text: str, namespace: str, now_ns: int, traceparent: str, dry_run: bool, request_id: str
    ) -> Stored:
        """Creates one object."""

    def get(self, kind: Kind, namespace: str, name: str, now_ns: int) -> Stored:
        """Returns one object."""

    def list(self, query: Query, limit: int, token: str, now_ns: int) -> Listing:
        """Returns a page of objects."""

    def watch(self, query: Query, revision: int, initial: bool, bookmarks: bool) -> Cursor:
        """Begins a watch."""

    def update(
        self, text: str, namespace: str, now_ns: int, traceparent: str, status_only: bool, dry_run: bool
    ) -> Stored:
        """Replaces one object."""

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        text: str,
        now_ns: int,
        traceparent: str,
        status_only: bool,
        dry_run: bool,
    ) -> Stored:
        """Applies a merge patch to one object."""

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        now_ns: int,
        propagation: str,
        grace_seconds: int | None,
        uid: str,
        revision: int,
        dry_run: bool,
    ) -> tuple[Stored, bool]:
        """Deletes one object; returns it and whether it is gone."""

    def scale(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        replicas: int,
        now_ns: int,
        traceparent: str,
        current: int | None,
        revision: int,
    ) -> Stored:
        """Sets the replicas of a workload."""

    def register_node(
        self,
        host: str,
        address: str,
        cpu_millicores: int,
        memory_bytes: int,
        max_pods: int,
        labels: dict[str, str],
        now_ns: int,
    ) -> Stored:
        """Adds a host, or changes it."""

    def cordon(self, name: str, unschedulable: bool, now_ns: int) -> Stored:
        """Marks a node unschedulable, or schedulable again."""

    def objects(self, kind: Kind) -> Sequence[Object]:
        """Returns all objects of a kind as they are stored; they are not to be changed."""

    def log_source(self, namespace: str, name: str, container: str, previous: bool) -> LogSource:
        """Finds the output of a container."""
