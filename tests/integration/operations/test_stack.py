"""A stack that is up, as its operators see it: metrics, export, logs and reload, in one process and in six."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path
from typing import Any, Protocol

import pytest

from lamina_cli.client import home
from lamina_cli.layers import CALLS


class Eventually(Protocol):
    """Waits until a condition holds."""

    async def __call__(self, condition: Any, what: str, within: float = 10.0) -> None: ...


def rows(text: str) -> list[list[str]]:
    """Returns the rows of a table behind its head, as columns."""
    return [re.split(r"\s{2,}", line) for line in text.splitlines()[1:]]


async def test_one_process_tells_of_all_layers(lamina: Any, collector: Any, eventually: Eventually) -> None:
    """Metrics are served, JSON is logged, a traced call and the metrics are exported, also what a stop flushes."""
    lamina.variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "LAMINA_LOG_FORMAT": "json"}
    started = lamina.up()
    assert f"metrics on http://127.0.0.1:{lamina.metrics_port}/metrics" in started.stdout
    assert lamina.get("/healthz") == "ok\n"
    values = lamina.values()
    assert values['lamina_mmu_frames{host="h1",layer="mmu",use="free"}'] > 60_000
    assert values['lamina_hardware_cores{host="h1",layer="hardware",state="idle"}'] == 4
    assert values['lamina_orchestrator_pods{host="",layer="orchestrator",phase="Running"}'] == 0
    assert values['lamina_hypervisor_vms{host="h1",layer="hypervisor",state="running"}'] == 0
    assert values['lamina_vswitch_ports{host="h1",layer="vswitch",state="up"}'] == 0
    assert values['lamina_runtime_containers{host="h1",layer="container-runtime",state="running"}'] == 0
    assert [value for name, value in values.items() if name.startswith("lamina_metrics_failures")] == [0.0] * 6

    lamina.run("mmu", "memory")
    call = 'code="OK",host="h1",layer="mmu",method="lamina.mmu.v1.Frames/GetMemory"'
    assert lamina.values()[f"lamina_calls_total{{{call}}}"] == 1
    trace_id = re.findall("[0-9a-f]{32}", lamina.run("mmu", "memory", "--trace").stderr)[0]
    await eventually(lambda: collector.spans(), "the span of the traced call arrived", within=30)
    ((layer, span),) = collector.spans()
    assert (layer, span["name"], span["traceId"]) == ("mmu", "lamina.mmu.v1.Frames/GetMemory", trace_id)
    lamina.run("mmu", "memory", "--trace")
    lamina.run("down")
    assert len(collector.spans()) == 2, "a span that waited was sent before the end"
    assert {layer for layer, _ in collector.metrics()} == set(CALLS)
    assert all("event" in json.loads(line) for line in lamina.log())


def test_a_reload_says_what_changed_and_a_mistake_changes_nothing(lamina: Any) -> None:
    """Operations apply at once, layers wait for a restart, a wrong file is refused with field and reason."""
    lamina.up()
    assert lamina.run("reload").stdout == "nothing has changed\n"
    lamina.configure('[operations]\nlog_format = "json"\n[hardware]\ncores = 2\n')
    assert rows(lamina.run("reload").stdout) == [
        ["operations.log_format", "console", "json", "applied", "stack"],
        ["hardware.cores", "4", "2", "needs a restart", "stack"],
    ]
    assert json.loads(lamina.log()[-1])["event"] == "config.reloaded"
    lamina.configure('[operations]\nlog_format = "console"\n[hardware]\ncores = "many"\n')
    refused = lamina.run("reload", expect=1).stderr
    assert "hardware.cores" in refused
    assert "CONFIG_WRONG_TYPE" in refused
    assert json.loads(lamina.log()[-1])["reason"] == "CONFIG_WRONG_TYPE"
    assert lamina.get("/healthz") == "ok\n"


async def test_six_processes_tell_of_themselves(lamina: Any, collector: Any, eventually: Eventually) -> None:
    """Each layer has a port of its own in the order of the layers, exports its spans, and reloads with the others."""
    lamina.variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    lamina.configure('[operations]\nlog_format = "json"\n')
    lamina.up("--split")
    for offset, layer in enumerate(home.LAYERS):
        assert lamina.get("/healthz", offset) == "ok\n"
        assert {re.search('layer="([^"]*)"', name)[1] for name in lamina.values(offset) if "layer=" in name} == {layer}  # type: ignore[index]
    lamina.run("runtime", "containers", "--trace")
    await eventually(lambda: collector.spans(), "the span of the traced call arrived", within=30)
    assert [layer for layer, _ in collector.spans()] == ["container-runtime"]
    for layer in home.LAYERS:
        events = [json.loads(line) for line in lamina.log(f"logs/{layer}.log")]
        assert {event["layer"] for event in events} == {layer}
        assert {event["host"] for event in events} == {"" if layer == "orchestrator" else "h1"}

    lamina.configure('[operations]\nlog_level = "debug"\nlog_format = "json"\n[mmu]\nswap_bytes = 8192\n')
    changes = {row[0]: row[4].split(",") for row in rows(lamina.run("reload").stdout)}
    assert changes == {"operations.log_level": ["stack", *home.LAYERS], "mmu.swap_bytes": ["stack", "mmu"]}
    lamina.configure("[mmu]\nswap_bytes = 'all'\n")
    assert "mmu.swap_bytes" in lamina.run("reload", expect=1).stderr
    assert json.loads(lamina.log("logs/hardware.log")[-1])["event"] == "config.reloaded", "nobody else was asked"

    record = json.loads((lamina.home / "default" / "stack.json").read_text())
    os.kill(record["processes"]["mmu"]["pid"], signal.SIGSTOP)
    try:
        assert lamina.get("/healthz", 0) == "ok\n", "one that hangs takes no other along"
    finally:
        os.kill(record["processes"]["mmu"]["pid"], signal.SIGCONT)


def test_a_stepped_stack_is_looked_at_from_outside_its_time(lamina: Any) -> None:
    """Metrics show the stack's clock; looking moves nothing and leaves no trace in the log of what entered."""
    lamina.up("--clock", "stepped", "--seed", "3")
    clock = 'lamina_clock_seconds{host="h1",layer="mmu",mode="stepped"}'
    before = lamina.values()[clock]
    entered = (lamina.home / "default" / "input.jsonl").read_text()
    assert lamina.values()[clock] == before
    assert (lamina.home / "default" / "input.jsonl").read_text() == entered
    lamina.run("clock", "advance", "1h")
    assert lamina.values()[clock] == pytest.approx(before + 3600, abs=1)
    assert lamina.run("reload").stdout == "nothing has changed\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--metrics", "0.0.0.0:1"), "METRICS_NOT_LOOPBACK"),
        (("--metrics", "127.0.0.1"), "METRICS_ADDRESS"),
        (("--metrics", "127.0.0.1:65533", "--split"), "METRICS_ADDRESS"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_starts(lamina: Any, words: tuple[str, ...], reason: str) -> None:
    """Nothing is started for it."""
    assert reason in lamina.run("up", "--port", str(lamina.port), *words, expect=1).stderr
    assert not (lamina.home / "default" / "stack.json").exists()


def test_a_busy_port_of_the_metrics_is_named(lamina: Any) -> None:
    """The stack does not start without the metrics that were asked for, and says which port is in use."""
    with socket.create_server(("127.0.0.1", lamina.metrics_port)):
        address = f"127.0.0.1:{lamina.metrics_port}"
        refused = lamina.run("up", "--port", str(lamina.port), "--metrics", address, expect=1).stderr
    assert "PORT_IN_USE" in refused
    assert str(lamina.metrics_port) in refused


def test_an_unknown_key_of_the_section_is_named(lamina: Any, tmp_path: Path) -> None:
    """As in the sections of layers, with what was probably meant."""
    lamina.configure("[operations]\nlog_fromat = 'json'\n")
    refused = lamina.run("up", "--port", str(lamina.port), "--config", str(lamina.file), expect=1).stderr
    assert "CONFIG_UNKNOWN_KEY" in refused
    assert "operations.log_format" in refused
