"""Operations of a process: what a reload applies, what it leaves, and what it refuses as a whole."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.ports import take

from lamina_kit import config as configuration
from lamina_kit.clock import RealClock
from lamina_kit.layer.state import LayerState
from lamina_kit.operations import reload, settings
from lamina_kit.operations.operations import Configured, Operations, Place, Shown
from lamina_kit.operations.reload import HangUp, Reloaded
from lamina_kit.rng import Rng
from lamina_kit.telemetry import log
from lamina_kit.telemetry.metrics import Family

pytestmark = pytest.mark.real_time("sockets, threads and signals")


class Eventually(Protocol):
    """Waits until a condition holds."""

    async def __call__(self, condition: Any, what: str, within: float = 10.0) -> None: ...


@dataclass(frozen=True)
class MmuLike:
    """Stands for the configuration of a layer."""

    policy: str = "lru"
    swap_bytes: int = 4096


class World:
    """One process's operations over a file that a test writes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.write("")
        self.state = LayerState("mmu", "h1", RealClock(), Rng(1))
        self.operations = Operations(self.read, Shown(lambda: [self.state], lambda: ""), Place("mmu", "h1"))

    def write(self, operations: str, mmu: str = "") -> None:
        """Writes the two sections."""
        self.file.write_text(f"[operations]\n{operations}\n[mmu]\n{mmu}\n")

    def read(self) -> Configured:
        """Reads the file, as a process does."""
        own = configuration.load("mmu", MmuLike, self.file, {})
        return Configured(settings.load(self.file, {}), {"mmu": own})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Operations that have started with an empty configuration."""
    made = World(tmp_path / "lamina.toml")
    await made.operations.start()
    made.operations.attach()
    yield made
    await made.operations.stop()
    log.configure()


def lines(report: Reloaded) -> list[str]:
    """Returns the changes as text."""
    return [change.text() for change in report.changes]


async def fetch(address: str, path: str = "/metrics") -> str:
    """Returns what an endpoint answers."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text


async def test_nothing_new_changes_nothing(world: World) -> None:
    """The same file gives an empty report."""
    assert await world.operations.reload() == Reloaded()


async def test_operations_are_applied_and_layers_wait_for_a_restart(world: World) -> None:
    """The report names old and new value of each field; the metrics are served from then on, and count the reload."""
    world.write('metrics_listen = "127.0.0.1:0"\nlog_level = "warning"', 'policy = "clock"')
    assert lines(await world.operations.reload()) == [
        "operations.log_level: info -> warning, applied",
        "operations.metrics_listen: (unset) -> 127.0.0.1:0, applied",
        "mmu.policy: lru -> clock, needs a restart",
    ]
    text = await fetch(world.operations.metrics_address)
    assert 'lamina_layer_info{engine="model",host="h1",layer="mmu"' in text
    assert 'lamina_reloads_total{host="h1",layer="mmu",outcome="applied"} 1' in text
    assert "process_resident_memory_bytes " in text
    assert await world.operations.reload() == Reloaded()


async def test_a_mistake_anywhere_changes_nothing(world: World) -> None:
    """A wrong layer keeps a right section of operations from being applied; field and reason are told."""
    world.write('metrics_listen = "127.0.0.1:0"', "swap_bytes = 'many'")
    report = await world.operations.reload()
    assert (report.reason, report.changes) == ("CONFIG_WRONG_TYPE", ())
    assert "mmu.swap_bytes" in report.message
    assert world.operations.metrics_address == ""
    world.write("otlp_timeout_ms = 0")
    report = await world.operations.reload()
    assert (report.reason, "otlp_timeout_ms" in report.message) == ("OPERATIONS_INVALID", True)
    world.file.write_text("[operations\n")
    assert (await world.operations.reload()).reason == "CONFIG_MALFORMED"
    world.file.unlink()
    assert (await world.operations.reload()).reason == "CONFIG_NOT_FOUND"


async def test_a_port_in_use_leaves_the_old_endpoint(world: World) -> None:
    """The new address cannot be had: the reload is refused whole, and the old one goes on."""
    world.write('metrics_listen = "127.0.0.1:0"')
    await world.operations.reload()
    before = world.operations.metrics_address
    with socket.create_server(("127.0.0.1", 0)) as busy:
        world.write(f'metrics_listen = "127.0.0.1:{busy.getsockname()[1]}"\nlog_level = "error"')
        report = await world.operations.reload()
    assert report.reason == "PORT_IN_USE"
    assert world.operations.configured.operations.log_level == "info"
    assert world.operations.metrics_address == before
    assert (await fetch(before, "/healthz")).endswith("ok\n")


async def test_an_endpoint_can_move_to_another_address_of_its_port(world: World) -> None:
    """From 127.0.0.1 to all addresses, on the same port: the old one makes room."""
    port = take(1)
    world.write(f'metrics_listen = "127.0.0.1:{port}"')
    assert (await world.operations.reload()).reason == ""
    world.write(f'metrics_listen = "127.0.0.2:{port}"')
    assert (await world.operations.reload()).reason == ""
    assert world.operations.metrics_address == f"127.0.0.2:{port}"
    assert (await fetch(f"127.0.0.2:{port}", "/healthz")).endswith("ok\n")


async def test_turning_metrics_off_frees_the_port(world: World) -> None:
    """Nobody listens any more."""
    world.write('metrics_listen = "127.0.0.1:0"')
    await world.operations.reload()
    address = world.operations.metrics_address
    world.write("")
    await world.operations.reload()
    with pytest.raises(ConnectionRefusedError):
        await fetch(address)


async def test_export_begins_and_ends_with_its_endpoint(world: World) -> None:
    """Spans have a way out while there is an endpoint, and none afterwards."""
    world.write('otlp_endpoint = "http://127.0.0.1:9"')
    await world.operations.reload()
    assert world.state.spans.sink is not None
    assert "lamina_otlp_queue_spans" in [family.name for family in world.operations.families()]
    world.write("")
    await world.operations.reload()
    assert world.state.spans.sink is None
    assert "lamina_otlp_queue_spans" not in [family.name for family in world.operations.families()]


async def test_metrics_are_exported_at_the_interval_that_holds(world: World, eventually: Eventually) -> None:
    """A shorter interval begins at once, not after the longer one has passed."""
    world.write('otlp_endpoint = "http://127.0.0.1:9"')
    await world.operations.reload()
    looks: list[int] = []

    def look() -> list[Family]:
        looks.append(len(looks))
        return []

    world.state.metrics.add(look)
    world.write('otlp_endpoint = "http://127.0.0.1:9"\notlp_interval_ms = 100')
    await world.operations.reload()
    await eventually(lambda: len(looks) > 3, "several looks")
    assert looks == list(range(len(looks)))


async def test_logs_change_for_loggers_that_exist(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A logger that was made before a reload writes in the new form and from the new level."""
    logger = log.logger("mmu")
    logger.debug("page.kept")
    world.write('log_format = "json"\nlog_level = "debug"')
    await world.operations.reload()
    capsys.readouterr()
    logger.debug("page.kept", frame=1)
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert {key: line[key] for key in ("event", "layer", "host", "frame", "trace_id")} == {
        "event": "page.kept",
        "layer": "mmu",
        "host": "h1",
        "frame": 1,
        "trace_id": "",
    }


async def test_a_hang_up_writes_a_numbered_report(world: World, tmp_path: Path, eventually: Eventually) -> None:
    """Each signal gives one report more, readable as a whole, and whoever is to follow is told."""
    told: list[Reloaded] = []
    HangUp(world.operations.reload, tmp_path, told.append).install()
    try:
        assert reload.read(tmp_path) is None
        world.write('log_level = "error"')
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: told, "the first report")
        written = reload.read(tmp_path)
        assert written is not None
        assert (written.number, written.pid, lines(written.report)) == (
            1,
            os.getpid(),
            ["operations.log_level: info -> error, applied"],
        )
        world.write("log_level = 3")
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: len(told) == 2, "the second report")
        written = reload.read(tmp_path)
        assert written is not None
        assert (written.number, written.report.code, written.report.reason) == (
            2,
            "INVALID_ARGUMENT",
            "CONFIG_WRONG_TYPE",
        )
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
