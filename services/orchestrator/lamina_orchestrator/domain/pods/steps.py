"""The work on a pod as steps: generators that yield runtime effects and return an outcome.

A step never raises an error of the runtime: it returns how far it came, and `next_work` decides what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.effects import Step
from lamina_kit.errors import FailedPrecondition, Internal, InvalidArgument, LaminaError, NotFound
from lamina_orchestrator.domain.kinds.plain_object import Object, uid_of
from lamina_orchestrator.domain.pods.containers import ContainerState, Image, SandboxState
from lamina_orchestrator.domain.pods.effects import (
    CreateContainerCall,
    RemoveContainerCall,
    RemoveSandboxCall,
    ResolveImage,
    RunSandboxCall,
    StartContainerCall,
    StopContainersCall,
    StopSandboxCall,
)
from lamina_orchestrator.domain.pods.spec import container_spec, sandbox_spec
from lamina_orchestrator.domain.pods.work import (
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainers,
    StopSandbox,
    Work,
)


@dataclass(frozen=True, slots=True)
class SandboxRuns:
    """The sandbox is ready."""

    sandbox: SandboxState


@dataclass(frozen=True, slots=True)
class ContainerRuns:
    """The container was started; `image` is what its reference resolved to."""

    state: ContainerState
    image: Image


@dataclass(frozen=True, slots=True)
class ContainerFailed:
    """The container was not started: reason and message as its status shows them.

    `sandbox_lost` says that the runtime does not have the sandbox any more, or not ready.
    """

    container: str
    reason: str
    message: str
    sandbox_lost: bool = False


@dataclass(frozen=True, slots=True)
class ContainersStopped:
    """The containers have ended."""

    states: tuple[ContainerState, ...]


@dataclass(frozen=True, slots=True)
class SandboxStopped:
    """The sandbox was stopped and keeps its containers' logs."""


@dataclass(frozen=True, slots=True)
class SandboxRemoved:
    """The sandbox is gone."""


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """Work on the pod as a whole failed: reason and message as its events show them."""

    reason: str
    message: str


Outcome = (
    SandboxRuns | ContainerRuns | ContainerFailed | ContainersStopped | SandboxStopped | SandboxRemoved | WorkFailed
)


def step_of(node: str, pod: Object | None, work: Work, sandbox: str) -> Step[Outcome]:
    """The step that does a piece of work. Starting work needs the pod; tearing down does not."""
    if isinstance(work, RunSandbox) and pod is not None:
        return _run_sandbox(node, pod, work)
    if isinstance(work, StartContainer) and pod is not None:
        return _start_container(node, pod, work, sandbox)
    if isinstance(work, StopContainers):
        return _stop_containers(node, work)
    if isinstance(work, StopSandbox | RemoveSandbox):
        return _end_sandbox(node, work)
    raise Internal(f"{type(work).__name__} is no work for a runtime.", reason="WORK_UNKNOWN")


def _run_sandbox(node: str, pod: Object, work: RunSandbox) -> Step[Outcome]:
    try:
        if work.replaces:
            yield RemoveSandboxCall(node, work.replaces)
        sandbox: SandboxState = yield RunSandboxCall(node, sandbox_spec(pod, work.attempt))
    except LaminaError as error:
        return WorkFailed("FailedCreatePodSandBox", f"Failed to create pod sandbox: {error.message}")
    return SandboxRuns(sandbox)


def _start_container(node: str, pod: Object, work: StartContainer, sandbox: str) -> Step[Outcome]:
    name, reference = work.container["name"], work.container["image"]
    try:
        image: Image = yield ResolveImage(node, reference)
    except LaminaError as error:
        return ContainerFailed(name, _image_reason(work, error), _image_message(reference, error))
    reason = "CreateContainerError"
    try:
        for old in work.discard:
            yield RemoveContainerCall(node, old)
        spec = container_spec(pod, work.container, work.attempt, image.name)
        created: ContainerState = yield CreateContainerCall(node, sandbox, uid_of(pod), spec)
        reason = "RunContainerError"
        started: ContainerState = yield StartContainerCall(node, created.name)
    except LaminaError as error:
        return ContainerFailed(name, reason, error.message, _lost_sandbox(error))
    return ContainerRuns(started, image)


def _image_reason(work: StartContainer, error: LaminaError) -> str:
    if isinstance(error, InvalidArgument):
        return "InvalidImageName"
    if isinstance(error, NotFound) and work.container.get("imagePullPolicy") == "Never":
        return "ErrImageNeverPull"
    return "ErrImagePull"


def _image_message(reference: str, error: LaminaError) -> str:
    if isinstance(error, NotFound):
        return f'image "{reference}" is not on the node; import it there'
    return f'failed to resolve image "{reference}": {error.message}'


def _lost_sandbox(error: LaminaError) -> bool:
    return isinstance(error, NotFound | FailedPrecondition) and error.reason in ("SANDBOX_UNKNOWN", "SANDBOX_NOT_READY")


def _stop_containers(node: str, work: StopContainers) -> Step[Outcome]:
    try:
        states: tuple[ContainerState, ...] = yield StopContainersCall(node, work.names, work.grace_ns)
    except LaminaError as error:
        return WorkFailed("FailedKillPod", f"error killing pod: {error.message}")
    return ContainersStopped(states)


def _end_sandbox(node: str, work: StopSandbox | RemoveSandbox) -> Step[Outcome]:
    try:
        if isinstance(work, StopSandbox):
            yield StopSandboxCall(node, work.name)
            return SandboxStopped()
        yield RemoveSandboxCall(node, work.name)
    except NotFound:
        return SandboxRemoved()
    except LaminaError as error:
        return WorkFailed("FailedKillPod", f"error killing pod: {error.message}")
    return SandboxRemoved()
