"""Carries out what controllers want, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lamina_kit.errors import LaminaError
from lamina_orchestrator.domain.admission.chain import Admission
from lamina_orchestrator.domain.controllers import deletion
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.kinds import kind_of_resource
from lamina_orchestrator.domain.kinds.plain_object import (
    Key,
    Object,
    evolve,
    is_deleting,
    name_of,
    namespace_of,
    revision_of,
    uid_of,
)
from lamina_orchestrator.domain.objects.actions import (
    NORMAL,
    WARNING,
    Action,
    Again,
    Create,
    Decide,
    Emit,
    Remove,
    Replace,
    SetStatus,
)
from lamina_orchestrator.domain.objects.ownership import controller_of
from lamina_orchestrator.engines.model.api.registry import Registry
from lamina_orchestrator.engines.model.control.recorder import EventRecorder
from lamina_orchestrator.engines.model.state.ledger import Intent, Ledger

Decider = Callable[[Key, str, str, str, dict[str, Any]], None]
"""Records a decision: about what, the event, the rule, the cause, the inputs."""

_COMPONENT = {"ReplicaSet": "replicaset-controller", "Deployment": "deployment-controller"}


class Executor:
    """Turns actions into writes, Events and decisions."""

    def __init__(
        self, ledger: Ledger, registry: Registry, admission: Admission, recorder: EventRecorder, decide: Decider
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._admission = admission
        self._recorder = recorder
        self._decide = decide

    def execute(self, actions: Sequence[Action], now_ns: int) -> int:
        """Carries out the actions; returns the earliest time at which to look again, 0 for none.

        New objects are written together. An action whose object changed meanwhile is dropped: the change brings its
        controller back.
        """
        again = 0
        batch: list[Create] = []
        for action in actions:
            if isinstance(action, Create):
                batch.append(action)
                continue
            if isinstance(action, Again):
                again = min(again, action.at_ns) if again else action.at_ns
                continue
            self._create(batch, now_ns)
            batch = []
            self._one(action, now_ns)
        self._create(batch, now_ns)
        return again

    def _one(self, action: Action, now_ns: int) -> None:
        if isinstance(action, Replace):
            self._replace(action)
        elif isinstance(action, SetStatus):
            current = self._ledger.cache.get(action.key)
            if current is not None:
                self._ledger.put(action.key, evolve(current, status=action.status))
        elif isinstance(action, Remove):
            self._remove(action, now_ns)
        elif isinstance(action, Emit):
            self._recorder.emit(action.about, action.kind, action.reason, action.message, action.component, now_ns)
        elif isinstance(action, Decide):
            self._decide(action.key, action.event, action.rule, action.cause, dict(action.inputs))

    def _create(self, batch: Sequence[Create], now_ns: int) -> None:
        intents: list[Intent] = []
        for action in batch:
            made = self._admission.complete(action.kind, action.obj, now_ns)
            key = action.kind.key(namespace_of(made), name_of(made))
            try:
                if action.kind.namespaced:
                    self._registry.check_namespace(namespace_of(made))
            except LaminaError as error:
                self._refused(made, error, now_ns)
                return
            if self._ledger.cache.get(key) is None:
                intents.append(Intent(key, made))
        if not intents:
            return
        self._ledger.commit(intents)
        for intent in intents:
            self._created(intent.obj, now_ns)

    def _created(self, made: Object, now_ns: int) -> None:
        owner = self._controller(made)
        if owner is not None and made["kind"] == kinds.POD.name:
            component = _COMPONENT.get(owner["kind"], "controller")
            self._recorder.emit(owner, NORMAL, "SuccessfulCreate", f"Created pod: {name_of(made)}", component, now_ns)

    def _refused(self, made: Object, error: LaminaError, now_ns: int) -> None:
        owner = self._controller(made)
        if owner is not None:
            component = _COMPONENT.get(owner["kind"], "controller")
            self._recorder.emit(owner, WARNING, "FailedCreate", f"Error creating: {error.message}", component, now_ns)

    def _controller(self, obj: Object) -> Object | None:
        reference = controller_of(obj)
        return self._ledger.cache.by_uid(reference["uid"]) if reference else None

    def _replace(self, action: Replace) -> None:
        key = action.kind.key(namespace_of(action.obj), name_of(action.obj))
        current = self._ledger.cache.get(key)
        if current is not None and revision_of(current) == revision_of(action.obj) and current != action.obj:
            self._ledger.put(key, action.obj)

    def _remove(self, action: Remove, now_ns: int) -> None:
        obj = self._ledger.cache.get(action.key)
        if obj is None or uid_of(obj) != action.uid:
            return
        kind = kind_of_resource(action.key.resource)
        policy = deletion.FOREGROUND_POLICY if action.foreground else deletion.BACKGROUND_POLICY
        marked = deletion.mark(kind, obj, now_ns, policy, action.grace_seconds)
        if marked is None:
            self._ledger.remove(action.key)
        elif marked is not obj:
            self._ledger.put(action.key, marked)
            if not is_deleting(obj) and kind == kinds.POD:
                inputs = {"grace_seconds": int(marked["metadata"]["deletionGracePeriodSeconds"])}
                self._decide(action.key, "pod.deleting", action.why, "", inputs)
