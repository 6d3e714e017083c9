"""`lamina up --clock …`, `lamina clock` and `lamina replay`: stacks that do not live on the machine's clock."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lamina_cli.demo import images
from lamina_cli.guests.assets import asset
from lamina_kit.gateway.log import canonical
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.status import rpc_error

SECOND, HOUR = 10**9, 3600 * 10**9
MINUTES = 600
"""Limit of a test with a dozen processes, for a machine that does much else."""
EVENTS, INPUTS = "events.jsonl", "inputs.jsonl"


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a program that counts to its first argument and ends with its second one."""
    program = tmp_path_factory.mktemp("programs") / "counter"
    program.write_bytes(images.build("counter").elf)
    return str(program)


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A stepped stack for the tests of this module that leave it as it is, but for its time."""
    from tests.integration.cli.conftest import Lamina, free_ports

    command = Lamina(tmp_path_factory.mktemp("home"))
    command.run("up", "--clock", "stepped", "--seed", "5", "--port", str(free_ports()))
    yield command
    command.run("down")


@pytest.fixture
def logged(lamina: Any, ports: int) -> Callable[..., Any]:
    """Returns a function that starts a stack which logs its events and inputs into the command's home."""

    def up(*words: str) -> Any:
        logs = ("--event-log", str(lamina.home / EVENTS), "--input-log", str(lamina.home / INPUTS))
        lamina.run("up", "--port", str(ports), *logs, *words)
        return lamina

    return up


def replay(lamina: Any, *words: str, expect: int = 0, log: str = INPUTS) -> Any:
    """Replays a log of the command's home. Returns the finished command."""
    again = str(lamina.home / "again.jsonl")
    return lamina.run("replay", str(lamina.home / log), "--event-log", again, *words, expect=expect)


def replayed_events(lamina: Any) -> bytes:
    """Returns the event log that the last replay wrote."""
    written: bytes = (lamina.home / "again.jsonl").read_bytes()
    return written


def now(lamina: Any) -> int:
    """Returns the stack's time in nanoseconds."""
    return int(lamina.json("clock", "get")["now_ns"])


def until(lamina: Any, condition: Callable[[], bool]) -> None:
    """Lets a stepped stack's time pass, a second at a time, until a condition holds."""
    for _ in range(60):
        if condition():
            return
        lamina.run("clock", "advance", "1s")
    raise AssertionError("a minute of the stack's time was not enough")


# ── the whole way ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.timeout(MINUTES)
def test_a_stepped_stack_is_replayed_byte_by_byte(logged: Any, counter: str) -> None:
    """Up, a deployment, a container, an hour, down: the input log alone leads to the same event log."""
    lamina = logged("--clock", "stepped", "--seed", "7")
    lamina.run("image", "build", str(asset("guests/hello.c")))
    lamina.run("apply", "-f", str(asset("examples/hello.yaml")))
    until(lamina, lambda: all(pod["status"].get("phase") == "Running" for pod in lamina.json("get", "pods")))
    pods = lamina.json("get", "pods")
    assert len(pods) == 3
    assert pods[0]["metadata"]["name"] in lamina.run("logs", pods[0]["metadata"]["name"]).stdout
    assert len(lamina.run("runtime", "run", counter, "3", "7", expect=7).stdout.splitlines()) >= 3
    before = now(lamina)
    assert "1h passed" in lamina.run("clock", "advance", "1h").stdout
    assert now(lamina) == before + HOUR
    ages = [line.split()[-1] for line in lamina.run("get", "pods").stdout.splitlines()[1:]]
    assert ages == ["60m"] * 3, "ages count in the stack's time"
    lamina.run("down")
    events = (lamina.home / EVENTS).read_bytes()
    assert {json.loads(line)["layer"] for line in events.splitlines()} >= {"mmu", "container-runtime", "orchestrator"}
    done = replay(lamina)
    assert replayed_events(lamina) == events
    assert hashlib.sha256(events).hexdigest() in done.stdout and "the same as the log says" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
def test_every_host_of_a_stack_is_replayed(logged: Any, counter: str) -> None:
    """What entered by the ports of another host enters there again; free running time is the same again too."""
    lamina = logged("--clock", "virtual", "--seed", "3", "--hosts", "2")
    lamina.run("runtime", "run", "--host", "h2", counter, "2", "4", expect=4)
    lamina.run("clock", "advance", "10s")
    lamina.run("down")
    assert '"layer":"h2/container-runtime"' in (lamina.home / INPUTS).read_text()
    told = json.loads(replay(lamina, "-o", "json").stdout)
    assert (told["stopped"], told["differences"]) == (True, 0)
    assert replayed_events(lamina) == (lamina.home / EVENTS).read_bytes()


@pytest.mark.timeout(MINUTES)
def test_a_virtual_stack_gets_ready_before_it_is_called(logged: Any) -> None:
    """What follows from the start happens at once: the first caller finds a node that is ready."""
    lamina = logged("--clock", "virtual", "--seed", "4")
    while now(lamina) < SECOND:
        pass
    conditions = lamina.json("get", "nodes")[0]["status"]["conditions"]
    assert [item["status"] for item in conditions if item["type"] == "Ready"] == ["True"]
    lamina.run("down")
    replay(lamina)
    assert replayed_events(lamina) == (lamina.home / EVENTS).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
def test_a_scaled_stack_goes_by_itself_and_is_replayed(logged: Any, counter: str) -> None:
    """A hundred times real time passes between two commands; its history is the inputs' all the same."""
    lamina = logged("--clock", "scaled", "--rate", "100", "--seed", "9")
    first = now(lamina)
    while now(lamina) == first:  # before anybody has called the stack
        pass
    assert lamina.run("runtime", "run", counter, "2", "3", expect=3).stdout
    lamina.run("clock", "set", "--rate", "1000")
    lamina.run("runtime", "run", counter, "1", "0")
    state = lamina.json("clock", "set", "--pause")
    assert state["paused"] and state["rate_permille"] == "1000000"
    assert now(lamina) == now(lamina)
    lamina.run("down")
    replay(lamina)
    assert replayed_events(lamina) == (lamina.home / EVENTS).read_bytes()


# ── logs that do not fit ─────────────────────────────────────────────────────────────────────────────────────────────


def interrupt_an_advance(lamina: Any) -> None:
    """Ends an advance of a busy stack by Ctrl-C, and checks that the clock stands where it came to."""
    before = now(lamina)
    advance = lamina.start("clock", "advance", "3000d")
    while now(lamina) == before:
        assert advance.poll() is None
    advance.send_signal(signal.SIGINT)
    assert advance.wait(timeout=60) == 130
    while int(lamina.json("clock", "get")["advance_count"]):
        pass
    reached = now(lamina)
    assert before < reached < before + 3000 * 24 * HOUR
    assert now(lamina) == reached


@pytest.mark.timeout(MINUTES)
def test_a_stack_that_was_killed_is_replayed_as_far_as_its_log_goes(logged: Any) -> None:
    """A cut log is refused with the way out, and with it gives the beginning of the history; so is one that was killed
    after an advance that somebody ended early."""
    lamina = logged("--clock", "stepped", "--seed", "7")
    lamina.run("image", "build", str(asset("guests/hello.c")))
    lamina.run("apply", "-f", str(asset("examples/hello.yaml")))
    lamina.run("clock", "advance", "5s")
    interrupt_an_advance(lamina)
    record = json.loads((lamina.home / "default" / "stack.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    (lamina.home / "default" / "stack.json").unlink()
    log = lamina.home / INPUTS
    log.write_bytes(log.read_bytes()[:-20])
    refused = replay(lamina, expect=1)
    assert "DATA_LOSS INPUT_LOG_CUT" in refused.stderr and "--until-cut" in refused.stderr
    assert "What stands before is replayed" in replay(lamina, "--until-cut").stderr
    events = replayed_events(lamina)
    assert len(events) > 1000 and (lamina.home / EVENTS).read_bytes().startswith(events)


@pytest.fixture(scope="module")
def short_log(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The command, with the log of a short run in its home."""
    from tests.integration.cli.conftest import Lamina, free_ports

    lamina = Lamina(tmp_path_factory.mktemp("home"))
    log, port = str(lamina.home / INPUTS), str(free_ports())
    lamina.run("up", "--clock", "stepped", "--seed", "7", "--port", port, "--input-log", log)
    lamina.run("status")
    lamina.run("clock", "advance", "2s")
    lamina.run("down")
    return lamina


def with_header(lamina: Any, **changes: Any) -> str:
    """Writes the short log with another header, whose digest fits. Returns its name."""
    first, _, rest = (lamina.home / INPUTS).read_text().partition("\n")
    header = json.loads(first)
    for path, value in changes.items():
        inner, keys = header, path.split("__")
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
    header["digest"] = hashlib.sha256(canonical(header["configuration"]).encode()).hexdigest()
    (lamina.home / "changed.jsonl").write_text(f"{json.dumps(header)}\n{rest}")
    return "changed.jsonl"


def test_what_is_another_than_in_the_log_is_named(short_log: Any) -> None:
    """Version and configuration: each difference is named in a refusal, and in a warning when the replay is forced."""
    log = with_header(short_log, version="9.9.9", configuration__effective__hardware__cores="99")
    refused = replay(short_log, expect=1, log=log)
    forced = replay(short_log, "--force", log=log)
    assert "REPLAY_DIFFERS" in refused.stderr
    for named in ("version: '9.9.9' in the log", "configuration hardware.cores: '99' in the log"):
        assert named in refused.stderr and named in forced.stderr


@pytest.mark.timeout(MINUTES)
def test_another_seed_is_another_history(short_log: Any) -> None:
    """A log whose seed was changed does not lead where it says: the fork is named."""
    log = with_header(short_log, configuration__seed=8)
    assert "DATA_LOSS REPLAY_DIVERGED" in replay(short_log, expect=1, log=log).stderr
    forced = replay(short_log, "--force", expect=1, log=log)
    assert "differences from the log" in forced.stdout


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "INPUT_LOG_CUT"),
        (b"\x7fELF\x02\x01\n", "INPUT_LOG_MALFORMED"),
        (b'{"format":"lamina-input","format_version":2}\n', "INPUT_LOG_FORMAT_UNKNOWN"),
    ],
)
def test_what_is_no_log_is_not_replayed(lamina: Any, content: bytes, reason: str) -> None:
    """An empty file, another kind of file and a later format end with their reasons."""
    (lamina.home / INPUTS).write_bytes(content)
    assert f"DATA_LOSS {reason}" in replay(lamina, expect=1).stderr


def test_a_log_that_is_not_there_is_not_replayed(lamina: Any) -> None:
    """The path is named."""
    assert "NOT_FOUND INPUT_LOG_NOT_FOUND" in lamina.run("replay", "nowhere", expect=1).stderr


def test_a_replay_does_not_replace_its_log(short_log: Any) -> None:
    """`--event-log` that names the input log is refused, and the log stays."""
    log = short_log.home / INPUTS
    before = log.read_bytes()
    refused = short_log.run("replay", str(log), "--event-log", str(log), expect=1)
    assert "LOGS_ARE_ONE_FILE" in refused.stderr and log.read_bytes() == before


# ── the clock ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_time_passes_as_it_is_told_to(stepped: Any) -> None:
    """The clock is exactly that much further."""
    before = now(stepped)
    for words, ns in (("1ms", 10**6), ("10s", 10 * SECOND), ("1h30m", 5400 * SECOND)):
        done = stepped.json("clock", "advance", words)
        assert int(done["clock"]["now_ns"]) == int(done["start_time_ns"]) + ns == before + ns
        before += ns
    assert now(stepped) == before


def test_a_stepped_stack_stands_still_between_commands(stepped: Any) -> None:
    """Looking at it lets no time pass, and says how the clock goes."""
    before = stepped.json("clock", "get")
    stepped.run("get", "nodes")
    after = stepped.json("clock", "get")
    assert after["now_ns"] == before["now_ns"]
    assert (after["mode"], after["seed"], after["paused"]) == ("CLOCK_MODE_STEPPED", "5", False)


def test_a_clock_that_cannot_go_so_says_why(stepped: Any) -> None:
    """Backwards, too far, no time at all and impossible rates: the error names what is wrong, and the clock stands."""
    stepped.run("clock", "advance", "1ms")
    before = now(stepped)
    for words, status, *texts in (
        (("advance", "--to", "0s"), 1, "OUT_OF_RANGE CLOCK_BACKWARDS", "time_ns: lies"),
        (("advance", "4000d"), 1, "OUT_OF_RANGE CLOCK_ADVANCE_TOO_LONG", "duration_ns: lies"),
        (("advance", "1y"), 2, "is not a duration such as"),
        (("advance",), 2, "required"),
        (("set", "--rate", "1000001"), 2, "is not a rate such as"),
        (("set", "--rate", "fast"), 2, "is not a rate such as"),
    ):
        refused = stepped.run("clock", *words, expect=status).stderr
        assert all(text in refused for text in texts), refused
    assert now(stepped) == before


def test_raw_calls_find_their_way(stepped: Any) -> None:
    """Reflection and health are answered beside the stack; any method's bytes pass through to it."""
    targets = json.loads((stepped.home / "default" / "stack.json").read_text())["targets"]

    async def talk() -> tuple[list[str], Any, list[str]]:
        async with connect(targets["mmu"]) as channel:
            reflecting: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
            health: Any = health_pb2_grpc.HealthStub(channel)
            raw: Any = channel.unary_unary("/lamina.mmu.v1.Spaces/GetSpace")
            call = reflecting.ServerReflectionInfo()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            listed = (await call.read()).list_services_response.service
            call.cancel()
            state = await health.Check(health_pb2.HealthCheckRequest())
            reasons = []
            for request in (b"\x12\x01x", b"\x0a\x01x", b"\x12\x01x"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await raw(request)
                reasons.append(rpc_error(caught.value).reason)
            return [service.name for service in listed], state, reasons

    names, state, reasons = asyncio.run(talk())
    assert "lamina.mmu.v1.Spaces" in names and state.status == health_pb2.HealthCheckResponse.SERVING
    assert reasons == ["NAME_MALFORMED", "RPC_UNKNOWN", "NAME_MALFORMED"], "the second one is no message"


# ── up ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--clock", "real", "--input-log", "x"), "INPUT_LOG_UNSUPPORTED"),
        (("--clock", "scaled", "--rate", "0"), "CLOCK_RATE_INVALID"),
        (("--clock", "stepped", "--split"), "TOPOLOGY_UNSUPPORTED"),
        (("--clock", "stepped", "--event-log", "x", "--input-log", "./x"), "LOGS_ARE_ONE_FILE"),
        (("--clock", "stepped", "--input-log", "/nowhere/x"), "INPUT_LOG_UNWRITABLE"),
        (("--clock", "stepped", "--event-log", "/nowhere/x"), "EVENT_LOG_UNWRITABLE"),
    ],
)
def test_what_does_not_go_together_is_refused(lamina: Any, ports: int, words: tuple[str, ...], text: str) -> None:
    """A clock with a log or a topology that it cannot have ends before anything is left running."""
    assert text in lamina.run("up", "--port", str(ports), *words, expect=1).stderr
    assert not (lamina.home / "default" / "stack.json").exists()


def test_the_machine_s_clock_is_not_advanced(up: Any) -> None:
    """A stack in real time refuses, and says how to start one that does not."""
    refused = up.run("clock", "advance", "1h", expect=1)
    assert "FAILED_PRECONDITION CLOCK_NOT_STEPPED" in refused.stderr and "lamina up --clock stepped" in refused.stderr
    assert "CLOCK_NOT_STEPPED" in up.run("clock", "set", "--rate", "2", expect=1).stderr
    assert up.json("clock", "get")["mode"] == "CLOCK_MODE_REAL"


@pytest.mark.slow
@pytest.mark.timeout(MINUTES)
def test_a_stack_with_kept_state_says_that_its_log_is_not_enough(logged: Any) -> None:
    """A second run begins with the first one's state: `up` says so, and a replay of its log is refused."""
    lamina = logged("--clock", "stepped")
    lamina.run("down")
    again = logged_again(lamina)
    assert "found state of an earlier run" in again.stdout and "--stack NAME" in again.stdout
    lamina.run("down")
    assert "REPLAY_DIFFERS" in replay(lamina, expect=1).stderr


def logged_again(lamina: Any) -> Any:
    """Starts the stack once more, on ports of its own."""
    from tests.integration.cli.conftest import free_ports

    return lamina.run("up", "--clock", "stepped", "--port", str(free_ports()), "--input-log", str(lamina.home / INPUTS))
