"""What every orchestrator engine does, without a clock, a channel or a runtime: inputs in, effects out."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from lamina_kit.engines import engines_of
from lamina_kit.errors import LaminaError
from lamina_kit.rng import Rng
from lamina_orchestrator.domain.kinds import kinds
from lamina_orchestrator.domain.kinds.plain_object import Key
from lamina_orchestrator.domain.pods.containers import EXITED, RUNNING, ContainerState, Image, SandboxState
from lamina_orchestrator.domain.pods.effects import (
    CreateContainerCall,
    ResolveImage,
    RunSandboxCall,
    StartContainerCall,
)
from lamina_orchestrator.engines.interface import (
    Connect,
    ContainerSeen,
    Disconnect,
    Engine,
    NodeAnswers,
    NodeSilent,
    Outgoing,
    Query,
    RunStep,
    StepDone,
)
from lamina_orchestrator.io.store.memory import MemoryStore

ENGINES = engines_of("orchestrator")
HELLO = (Path(__file__).parents[3] / "examples" / "hello.yaml").read_text()
SECOND = 10**9
START = 1_767_225_600 * SECOND


class Notes:
    """A journal that keeps decisions."""

    def __init__(self) -> None:
        self.decisions: list[tuple[str, str, str]] = []

    def request(self) -> str:
        """No call is served here."""
        return ""

    def note(self, key: Key, event: str, cause: str, inputs: dict[str, Any]) -> None:
        """Keeps nothing: what happens is seen in the objects."""

    def decide(self, key: Key, event: str, rule: str, cause: str, inputs: dict[str, Any]) -> None:
        """Keeps one."""
        self.decisions.append((key.resource_name, event, rule))

    def span(self, traceparent: str, name: str, **attributes: object) -> AbstractContextManager[object]:
        """Records no span."""
        return nullcontext()


class Bench:
    """An engine, its store and its journal."""

    def __init__(self, engine_class: type[Any]) -> None:
        self.notes = Notes()
        self.now = START
        self.store = MemoryStore()
        self.engine: Engine = engine_class(self.store, Rng(1), self.notes)
        self.engine.load(self.now)

    def settle(self) -> list[Outgoing]:
        """Lets the engine settle; returns its effects."""
        effects: list[Outgoing] = []
        while True:
            settled = self.engine.settle(self.now)
            effects += settled.effects
            if not settled.unfinished:
                return effects

    def node(self, name: str = "h1") -> None:
        """A node that answers and holds nothing."""
        self.engine.register_node(name, "a", 4000, 8 << 30, 110, {}, self.now)
        self.settle()
        self.engine.feed(NodeAnswers(name, (), ()), self.now)
        self.settle()

    def pods(self) -> list[dict[str, Any]]:
        """All pods."""
        return [stored.obj for stored in self.engine.list(Query(kinds.POD), 100, "", self.now).objects]


@pytest.fixture(params=sorted(ENGINES))
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each engine that can run here, freshly loaded."""
    engine_class = ENGINES[request.param]
    reasons = engine_class.missing()
    if reasons:
        pytest.skip(f"{request.param}: {'; '.join(reasons)}")
    return Bench(engine_class)


def answer(step: RunStep, results: dict[type[Any], Any]) -> Any:
    """Performs a step with given results; an error among them is raised inside it. Returns its outcome."""
    try:
        effect = next(step.step)
        while True:
            result = results[type(effect)]
            effect = step.step.throw(result) if isinstance(result, LaminaError) else step.step.send(result)
    except StopIteration as end:
        return end.value


def start_pod(bench: Bench, effects: list[Outgoing]) -> ContainerState:
    """Answers the steps of one pod until its container runs."""
    (step,) = [effect for effect in effects if isinstance(effect, RunStep)]
    sandbox = SandboxState("s1", step.uid, 0, True)
    bench.engine.feed(StepDone("h1", step.uid, step.name, answer(step, {RunSandboxCall: sandbox})), bench.now)
    (step,) = [effect for effect in bench.settle() if isinstance(effect, RunStep)]
    state = ContainerState("c1", "s1", step.uid, "hello", 0, RUNNING, started_ns=bench.now)
    results = {ResolveImage: Image("i", "sha256:1"), CreateContainerCall: state, StartContainerCall: state}
    bench.engine.feed(StepDone("h1", step.uid, step.name, answer(step, results)), bench.now)
    assert [effect for effect in bench.settle() if isinstance(effect, RunStep)] == []
    return state


def test_capabilities_are_named(bench: Bench) -> None:
    """An engine names what it can do, in alphabetical order."""
    assert list(bench.engine.capabilities) == sorted(bench.engine.capabilities)


def test_a_new_node_is_connected_to(bench: Bench) -> None:
    """A registered node is connected to, a moved one anew, a deleted one no more."""
    bench.engine.register_node("h1", "a", 1000, 1 << 30, 110, {}, bench.now)
    assert bench.settle() == [Connect("h1", "a")]
    bench.engine.register_node("h1", "b", 1000, 1 << 30, 110, {}, bench.now)
    assert bench.settle() == [Disconnect("h1"), Connect("h1", "b")]
    bench.engine.delete(kinds.NODE, "", "h1", bench.now, "background", None, "", 0, False)
    assert bench.settle() == [Disconnect("h1")]


def test_a_pod_goes_from_pending_to_running(bench: Bench) -> None:
    """One step runs the sandbox, the next the container, and the status follows what the runtime reports."""
    bench.node()
    bench.engine.apply(HELLO.replace("replicas: 3", "replicas: 1"), "", bench.now, "", False)
    state = start_pod(bench, bench.settle())
    (pod,) = bench.pods()
    assert pod["status"]["phase"] == "Running"
    exited = ContainerState("c1", "s1", state.pod_uid, "hello", 0, EXITED, exit_code=1, finished_ns=bench.now)
    bench.engine.feed(ContainerSeen("h1", exited), bench.now)
    (again,) = [effect for effect in bench.settle() if isinstance(effect, RunStep)]
    assert again.name == "pod.StartContainer"


def test_news_of_others_changes_nothing(bench: Bench) -> None:
    """Reports about containers, pods and nodes that are not ours are ignored."""
    bench.node()
    revision = bench.store.revision
    stray = ContainerState("c9", "s9", "no-such-uid", "x", 0, RUNNING)
    bench.engine.feed(ContainerSeen("h1", stray), bench.now)
    bench.engine.feed(NodeAnswers("h9", (), ()), bench.now)
    bench.engine.feed(NodeSilent("h9", "never there"), bench.now)
    assert bench.settle() == []
    assert bench.store.revision == revision


def test_settling_twice_does_nothing(bench: Bench) -> None:
    """Once settled, nothing is left: settling again writes nothing and asks for nothing."""
    bench.node()
    bench.engine.apply(HELLO, "", bench.now, "", False)
    bench.settle()
    revision = bench.store.revision
    assert bench.settle() == []
    assert bench.store.revision == revision


def test_a_budget_bounds_one_turn(bench: Bench) -> None:
    """A settling stops when its budget is used up and says so; the next one goes on."""
    bench.node()
    bench.engine.apply(HELLO.replace("replicas: 3", "replicas: 40"), "", bench.now, "", False)
    assert bench.engine.settle(bench.now, budget=3).unfinished
    bench.settle()
    assert len(bench.pods()) == 40
    assert all(pod["spec"].get("nodeName") == "h1" for pod in bench.pods())


def test_time_comes_from_the_caller(bench: Bench) -> None:
    """Objects are stamped with the time that the caller gives, and nothing else."""
    bench.now = START + 3600 * SECOND
    text = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})
    made = bench.engine.create(text, "", bench.now, "", False, "")
    assert made.obj["metadata"]["creationTimestamp"] == "2026-01-01T01:00:00Z"


def test_decisions_name_their_rule(bench: Bench) -> None:
    """Every decision that is recorded names the rule by which it was made."""
    bench.node()
    bench.engine.apply(HELLO, "", bench.now, "", False)
    bench.settle()
    assert {event for _, event, _ in bench.notes.decisions} >= {"pod.scheduled", "pods.created", "node.readiness"}
    assert all(rule for _, _, rule in bench.notes.decisions)
