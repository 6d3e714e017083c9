"""Random frames on random topologies leave by the same ports, with the same bytes, as Open vSwitch sends them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence

import pytest
from tests.linux.vswitch.open_vswitch import OpenVSwitch

from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.engines.model.engine import ModelEngine

FRAMES = int(os.environ.get("LAMINA_OVS_FRAMES", "4000"))
"""How many frames are compared, over all topologies; a long run takes 100,000, with `--timeout 600`."""
FRAMES_OF_A_TOPOLOGY = 400

VLANS = (0, 10, 20, 30)
STATIONS = [bytes.fromhex(f"0200000000{number:02x}") for number in range(1, 9)]
GROUPS = [bytes.fromhex(mac) for mac in ("ffffffffffff", "01005e000005", "333300000001")]
TYPES = (b"\x88\xb5", b"\x08\x00", b"\x08\x06", b"\x86\xdd")
A, B = STATIONS[:2]

PortRow = tuple[int, int, Trunk | None]


class Sink:
    """A device that takes everything."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take frames."""
        self.frames += frames
        return len(frames)

    def link_changed(self, up: bool) -> None:
        """Nothing to do."""

    def removed(self) -> None:
        """Nothing to do."""


class Ours:
    """Our switch with ports of (number, VLAN, trunk or None)."""

    def __init__(self, ports: Sequence[PortRow]) -> None:
        self.engine = ModelEngine(lambda notice: None)
        self.engine.add_switch("s", SwitchDefinition("s"))
        self.sinks: dict[int, Sink] = {}
        for number, vlan, trunk in ports:
            self.engine.add_port("s", number, f"p{number}", vlan, True)
            self.engine.set_policy(number, vlan, PolicyInForce(trunk=trunk), 0)
            self.sinks[number] = Sink()
            self.engine.attach(number, self.sinks[number], 0)

    def send(self, port: int, frame: bytes) -> dict[int, bytes]:
        """Send a frame; return which frame leaves by which port."""
        self.engine.transmit(port, [frame], 0)
        found = {}
        for number, sink in self.sinks.items():
            if sink.frames:
                (found[number],) = sink.frames
                sink.frames = []
        return found

    def addresses(self) -> list[tuple[int, bytes, int]]:
        """Return (VLAN, address, port) of what was learned, sorted."""
        return sorted((entry.vlan, entry.mac, entry.slot) for entry in self.engine.mac_entries("s", 0))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenVSwitch]:
    """Returns an Open vSwitch."""
    made = OpenVSwitch(tmp_path_factory.mktemp("ovs"))
    yield made
    made.close()


def topology(rng: random.Random) -> list[PortRow]:
    """Returns 2 to 9 ports: access ports, and trunks with a native VLAN and some others."""
    ports: list[PortRow] = []
    for number in range(1, rng.randint(3, 10)):
        vlan = rng.choice(VLANS)
        some = rng.sample(VLANS[1:], rng.randint(1, 3))
        ranges = tuple((each, each) for each in sorted(some))
        ports.append((number, vlan, Trunk(ranges, vlan) if rng.random() < 0.4 else None))
    return ports


def tag(rng: random.Random, port: PortRow) -> bytes:
    """Returns a tag or none; never, at an access port, that of its own VLAN: there the two differ (see below)."""
    if rng.random() < 0.4:
        return b""
    _, vlan, trunk = port
    vid = rng.choice([each for each in (*VLANS, 40) if trunk is not None or each != vlan or not each])
    return b"\x81\x00" + (rng.randrange(8) << 13 | vid).to_bytes(2, "big")


def test_frames_go_where_open_vswitch_sends_them(theirs: OpenVSwitch) -> None:
    """Ports and bytes are the same for every frame, and in the end the tables are."""
    for seed in range(max(1, FRAMES // FRAMES_OF_A_TOPOLOGY)):
        rng = random.Random(seed)
        ports = topology(rng)
        with theirs.bridge(ports):
            compare(Ours(ports), theirs, ports, rng)


def compare(ours: Ours, theirs: OpenVSwitch, ports: list[PortRow], rng: random.Random) -> None:
    """Compares what becomes of frames on one topology, and the tables in the end."""
    for _ in range(FRAMES_OF_A_TOPOLOGY):
        port = rng.choice(ports)
        frame = rng.choice(STATIONS * 2 + GROUPS) + rng.choice(STATIONS)
        frame += tag(rng, port) + rng.choice(TYPES) + rng.randbytes(46)
        assert ours.send(port[0], frame) == theirs.send(port[0], frame), (ports, port, frame.hex())
    assert ours.addresses() == theirs.addresses()


@pytest.fixture
def pair(theirs: OpenVSwitch) -> Iterator[tuple[Ours, OpenVSwitch]]:
    """Returns both with the same four ports: two in VLAN 10, a trunk, one in VLAN 0."""
    ports: list[PortRow] = [(1, 10, None), (2, 10, None), (3, 0, Trunk(((10, 20),), 0)), (4, 0, None)]
    with theirs.bridge(ports):
        yield Ours(ports), theirs


def test_an_access_port_takes_the_tag_of_its_own_vlan(pair: tuple[Ours, OpenVSwitch]) -> None:
    """Divergence: Open vSwitch drops every frame with a VLAN in its tag at an access port, ours only other VLANs'."""
    ours, theirs = pair
    frame = b"\xff" * 6 + A + b"\x81\x00\x00\x0a" + b"\x88\xb5" + bytes(46)
    assert theirs.send(1, frame) == {}
    assert ours.send(1, frame) == {2: frame[:12] + frame[16:], 3: frame}


def test_sources_that_are_no_station_are_dropped(pair: tuple[Ours, OpenVSwitch]) -> None:
    """Divergence: Open vSwitch forwards frames from group addresses and from no address, ours does not."""
    ours, theirs = pair
    for source in (GROUPS[1], bytes(6)):
        frame = b"\xff" * 6 + source + b"\x88\xb5" + bytes(46)
        assert ours.send(4, frame) == {} and theirs.send(4, frame) == {3: frame}


def test_spanning_tree_passes(pair: tuple[Ours, OpenVSwitch]) -> None:
    """Divergence: neither runs spanning tree; ours lets its frames pass, as Linux does, Open vSwitch drops them."""
    ours, theirs = pair
    frame = bytes.fromhex("0180c2000000") + A + b"\x88\xb5" + bytes(46)
    assert ours.send(4, frame) == {3: frame} and theirs.send(4, frame) == {}


def test_an_address_is_learned_from_frames_that_stay_on_the_link(pair: tuple[Ours, OpenVSwitch]) -> None:
    """Divergence: both keep 01:80:c2:00:00:0e on its link; ours learns who sent it, as Linux does."""
    ours, theirs = pair
    frame = bytes.fromhex("0180c200000e") + A + b"\x88\xb5" + bytes(46)
    assert ours.send(4, frame) == theirs.send(4, frame) == {}
    assert (ours.addresses(), theirs.addresses()) == ([(0, A, 4)], [])


def test_a_providers_tag_is_payload(pair: tuple[Ours, OpenVSwitch]) -> None:
    """Divergence: 802.1ad is payload to our access ports, a tag like any other to Open vSwitch."""
    ours, theirs = pair
    frame = b"\xff" * 6 + B + b"\x88\xa8\x00\x0a" + b"\x88\xb5" + bytes(46)
    assert ours.send(4, frame) == {3: frame} and theirs.send(4, frame) == {}
