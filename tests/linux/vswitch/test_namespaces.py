"""Two network namespaces whose TAP devices our switch joins: ping and iperf3 find an Ethernet between them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.linux.hardware.network import Network, needs_network

from lamina_vswitch.domain.backend.definition import Tap
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.tap import TapBackend

LEFT, RIGHT = "10.9.0.1", "10.9.0.2"


class Joined:
    """A switch with a TAP backend in each of two namespaces."""

    def __init__(self, networks: tuple[Network, Network]) -> None:
        self.networks = networks
        self.engine = ModelEngine(lambda notice: None)
        self.engine.add_switch("s", SwitchDefinition("s"))
        self.backends = []
        for slot, (network, address) in enumerate(zip(networks, (LEFT, RIGHT), strict=True), 1):
            self.engine.add_port("s", slot, f"p{slot}", 0, True)
            end = PortEnd(self.engine, slot, lambda: 1500, lambda: 0)
            backend = network.do(lambda end=end: TapBackend(end, Tap("tap0", up=True), 1000))  # type: ignore[misc]
            self.engine.attach(slot, backend, 0, backend.takes)
            backend.start()
            self.backends.append(backend)
            network.run(f"ip addr add {address}/24 dev tap0")

    def close(self) -> None:
        """Remove the devices."""
        for backend in self.backends:
            backend.close()

    async def run(self, command: str) -> str:
        """Run a command on the left, while frames are carried; return what it printed."""
        return await asyncio.to_thread(self.networks[0].do, lambda: _run(command))


def _run(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=25)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def networks() -> Iterator[tuple[Network, Network]]:
    """Returns two namespaces in which IPv6 does not speak."""
    needs_network()
    made = Network(), Network()
    for network in made:
        network.do(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
    yield made
    for network in made:
        network.close()


async def test_pings_of_any_size_pass(networks: tuple[Network, Network]) -> None:
    """Echo requests come back, those in fragments too; the switch has learned both devices and dropped nothing."""
    _needs("ping")
    joined = Joined(networks)
    for size in (0, 56, 1472, 1473, 20_000):
        said = await joined.run(f"ping -c 3 -i 0.05 -W 5 -s {size} {RIGHT}")
        assert "3 packets transmitted, 3 received" in said, said
    assert [entry.slot for entry in joined.engine.mac_entries("s", 0)] in ([1, 2], [2, 1])
    assert [joined.engine.counters(slot).drops_by_reason() for slot in (1, 2)] == [(), ()]
    joined.close()


async def test_iperf3_finds_whole_streams(networks: tuple[Network, Network], eventually: Any) -> None:
    """TCP both ways at once, with the long segments that the kernel hands over, gets through at a useful rate."""
    _needs("iperf3")
    joined = Joined(networks)
    right = networks[1]
    server = right.do(
        lambda: subprocess.Popen(["iperf3", "-s", "-1", "-B", RIGHT], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    )
    try:
        await eventually(lambda: f"{RIGHT}:5201" in right.do(_listeners), "iperf3 listens")
        found = json.loads(await joined.run(f"iperf3 -c {RIGHT} -t 1 --bidir -J"))["end"]
        assert await asyncio.to_thread(server.wait, 20) == 0
    finally:
        server.kill()
        server.communicate()
    for each in ("sum_received", "sum_received_bidir_reverse"):
        assert found[each]["bytes"] > 1_000_000, found[each]
    assert joined.engine.counters(1).received_frames > 0
    joined.close()


def _listeners() -> str:
    return subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True, timeout=10).stdout


def _needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no program {program}")
