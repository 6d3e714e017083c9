"""The kernel's switching beside the model's: the same seeded frames and changes, and the same outcome of every one.

`docs/fidelity-vswitch.md` is the table of what is equal and what differs; each difference has its test here.
`LAMINA_FIDELITY_SEEDS=200 ./run test tests/linux/vswitch/test_fidelity.py` plays more.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.vswitch.conftest import SWITCH, Bench
from tests.offload_frames import packet

from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.metadata import Offload, laden
from lamina_vswitch.domain.offload.features import ALL
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter
from lamina_vswitch.engines.linux.engine import LinuxEngine
from lamina_vswitch.engines.linux.netlink.links import RESERVED_MAC, index_of
from lamina_vswitch.engines.model.engine import ModelEngine

pytestmark = pytest.mark.skipif(bool(LinuxEngine.missing()), reason="engine linux: " + "; ".join(LinuxEngine.missing()))

SEEDS = int(os.environ.get("LAMINA_FIDELITY_SEEDS", "3"))
STEPS = 120
PORTS = 5
PAGE = Path(__file__).parents[3] / "docs/fidelity-vswitch.md"
ALL_STATIONS = b"\xff" * 6
STATIONS = [bytes([2, 0, 0, 0, 1, number]) for number in range(8)]
GROUPS = [ALL_STATIONS, *map(bytes.fromhex, ("01005e0000fb", "333300000001", "0180c2000000", "0180c200000e"))]
SCENARIOS = {
    "flat": "one VLAN: learning, floods, groups, links, cables, attaching, flushes",
    "vlans": "access ports in three VLANs that change; priority tags, foreign tags, tags within tags",
    "trunks": "trunks with native VLANs beside access ports; provider tags",
    "static": "static entries at ports that move, go down and leave; spoofed sources",
    "full": "a table of four addresses, one VLAN and several",
    "policies": "isolated and promiscuous ports, guarded and limited ones",
    "odd": "runts, frames too long, cut tags, bad sources, MTUs that change",
}


@pytest.fixture
def both() -> Iterator[tuple[Bench, Bench]]:
    """The model and the kernel, each with a switch of five ports; they end with the test."""
    pair = Bench(ModelEngine), Bench(LinuxEngine)
    for bench in pair:
        for slot in range(1, PORTS + 1):
            bench.port(slot)
    yield pair
    for bench in pair:
        bench.engine.close()


def outcome(bench: Bench) -> tuple[object, ...]:
    """Returns everything that can be seen of a switch, but for ages."""
    table = [(entry.vlan, entry.mac, entry.slot, entry.static) for entry in bench.engine.mac_entries(SWITCH, 0)]
    ports = {
        slot: (bench.engine.counters(slot), bench.engine.shut(slot), bench.engine.link(slot)) for slot in bench.sinks
    }
    return table, ports, bench.engine.tally(SWITCH, 0), {slot: sink.take() for slot, sink in bench.sinks.items()}


def frame(rng: Rng, scenario: str) -> bytes:
    """Returns a frame of the kind that a scenario is about."""
    dst = rng.choice([*STATIONS, *STATIONS, *GROUPS])
    src = rng.choice(STATIONS)
    size = rng.choice((46, 60, 300, 1500))
    tags = {"vlans": ("", "", "81000000", "8100e00a", "8100000a81000014", "88a8000a"), "trunks": TRUNK_TAGS}
    tag = rng.choice(tags.get(scenario, ("",)))
    made = dst + src + bytes.fromhex(tag) + b"\x08\x00" + bytes(rng.randrange(256) for _ in range(8)).ljust(size, b"x")
    if scenario == "odd":
        cut = rng.choice((len(made), len(made), 13, 14, 0, 17))
        made = (dst + rng.choice((src, b"\0" * 6, ALL_STATIONS)) + rng.choice((made[12:], b"\x81\x00" + made[12:])))[
            :cut
        ]
        made += bytes(rng.choice((0, 0, 4, 5, 7600)))
    return made


TRUNK_TAGS = ("", "8100000a", "81006014", "8100001e", "88a8000a8100001e", "81000000", "88a80014")


def change(rng: Rng, scenario: str, pair: tuple[Bench, Bench]) -> None:
    """Makes the same change of a scenario at both."""
    slot, vlan, station = rng.randrange(1, PORTS + 1), rng.choice((0, 10, 20)), rng.choice(STATIONS)
    kind = rng.randrange(7)
    policy = _policy(rng, scenario)
    mtu, up = rng.choice((576, 1500, 9000)), bool(rng.randrange(2))
    for bench in pair:
        engine = bench.engine
        if kind == 0:
            engine.set_link(slot, up, 0)
        elif kind == 1 and engine.attached(slot):
            engine.detach(slot, bench.sinks[slot], 0)
        elif kind == 1:
            engine.attach(slot, bench.sinks[slot], 0)
        elif kind == 2:
            engine.flush(SWITCH, vlan if up else None, None if up else slot, 0)
        elif kind == 3:
            engine.break_link(slot, up, 0)
        elif kind == 4 and scenario in ("vlans", "static", "full"):
            engine.set_vlan(slot, vlan, 0)
        elif kind == 5 and scenario == "static":
            if up:
                engine.add_static(SWITCH, vlan, station, slot, 0)
            else:
                engine.remove_mac(SWITCH, vlan, station, 0)
        elif kind == 6 and scenario == "odd":
            engine.update_switch(SWITCH, SwitchDefinition("s1", mtu_bytes=mtu), 0)
        elif kind >= 4 and scenario in ("trunks", "policies"):
            engine.set_policy(slot, policy.trunk.native if policy.trunk is not None else vlan, policy, 0)


def _policy(rng: Rng, scenario: str) -> PolicyInForce:
    native = rng.choice((0, 10))
    trunk = rng.choice((None, Trunk(((10, 20),), native), Trunk(((1, 4094),), native, provider_tags=True)))
    if scenario == "trunks":
        return PolicyInForce(trunk=trunk)
    security = Security(
        promiscuous=bool(rng.randrange(2)), mac_limit=rng.choice((0, 2)), reject_forged_transmits=not rng.randrange(4)
    )
    return PolicyInForce(isolated=bool(rng.randrange(2)), security=security)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_the_kernel_does_what_the_model_does(both: tuple[Bench, Bench], scenario: str, seed: int) -> None:
    """After every batch and every change, both delivered the same bytes, counted the same and know the same."""
    rng = Rng(seed).child(scenario)
    limit = 4 if scenario == "full" else 100
    for bench in both:
        bench.engine.update_switch(SWITCH, SwitchDefinition("s1", mac_limit=limit), 0)
    for step in range(STEPS):
        if rng.randrange(4):
            slot, batch = rng.randrange(1, PORTS + 1), [frame(rng, scenario) for _ in range(rng.randrange(1, 5))]
            dropped = [bench.engine.transmit(slot, batch, 0) for bench in both]
            assert dropped[0] == dropped[1], (step, slot, batch)
        else:
            change(rng, scenario, both)
        model, kernel = map(outcome, both)
        assert kernel == model, step
    assert f"**{scenario}**" in PAGE.read_text()


def test_laden_frames_cross_as_they_are(both: tuple[Bench, Bench]) -> None:
    """Long TCP with the rest left to do reaches a device that takes it in one piece, another one in segments."""
    long = laden(packet(4, 6, bytes(4000)), Offload(1, 1, 54, 1448, 34, 16), None)
    for bench in both:
        bench.engine.detach(2, bench.sinks[2], 0)
        bench.engine.attach(2, bench.sinks[2], 0, ALL)
        assert bench.engine.transmit(1, [long], 0) == 0
    model, kernel = map(outcome, both)
    assert kernel == model
    assert isinstance(kernel[3], dict)
    assert kernel[3][2] == [long] and len(kernel[3][3]) > 1


def test_the_kernels_own_address_is_nobody_s(both: tuple[Bench, Bench]) -> None:
    """A frame for the address of the kernel's devices floods in the model, and ends in the kernel as `KERNEL`."""
    model, kernel = (bench.reached(1, RESERVED_MAC + STATIONS[0] + b"\x08\0" + bytes(46)) for bench in both)
    assert len(model) == PORTS - 1 and kernel == {}
    assert both[1].drops(1) == {"KERNEL": 1}


def test_pause_frames_teach_the_kernel_nothing(both: tuple[Bench, Bench]) -> None:
    """A frame to 01:80:c2:00:00:01 is dropped by both; the model has learned its source by then."""
    for bench in both:
        assert bench.reached(1, bytes.fromhex("0180c2000001") + STATIONS[0] + b"\x88\x08" + bytes(46)) == {}
        assert bench.drops(1) == {"LINK_LOCAL": 1}
    assert [len(bench.table()) for bench in both] == [1, 0]


def test_the_kernel_s_clock_ages(both: tuple[Bench, Bench]) -> None:
    """A second after an address was seen the kernel forgets it by itself, and the engine hears of that."""
    engine = both[1].engine
    engine.update_switch(SWITCH, SwitchDefinition("s1", ageing_seconds=1), 0)
    for _ in range(20):
        began = time.monotonic()
        both[1].reached(1, ALL_STATIONS + STATIONS[0] + b"\x08\0" + bytes(46))
        entries = engine.mac_entries(SWITCH, 0)
        if (took := time.monotonic() - began) < 0.9:  # else the machine stood still for so long that it may be gone
            break
    else:
        pytest.skip("this machine stops for a second again and again")
    assert [0 <= entry.age_ns <= (took + 0.1) * 1e9 for entry in entries] == [True]
    assert select.select([engine.descriptor()], [], [], 20)[0], "the kernel has not told of an end"
    assert engine.tally(SWITCH, 0).mac_entries == 0


def test_the_rules_are_read_over_the_kernel_s_table(both: tuple[Bench, Bench]) -> None:
    """A trace and what then happens are the same, and both engines tell the same steps."""
    for bench in both:
        bench.engine.set_vlan(3, 7, 0)
        bench.engine.listen(2, ReceiveFilter(STATIONS[1]))
        bench.reached(2, ALL_STATIONS + STATIONS[1] + b"\x08\0" + bytes(46))
    asked = STATIONS[1] + STATIONS[0] + b"\x08\0" + bytes(46)
    model, kernel = (bench.engine.trace(1, asked, 0) for bench in both)
    assert kernel == model and kernel.outputs == (f"{SWITCH}/ports/p2",)
    assert both[1].reached(1, asked) == {2: [asked]}


def test_nothing_is_left_on_the_machine(both: tuple[Bench, Bench]) -> None:
    """The devices of an engine are in a namespace of its own: the machine's list of interfaces has none of them."""
    assert not any(name.startswith(("s1v", "p1v")) for name in os.listdir("/sys/class/net"))
    with both[1].engine.kernel.namespace.inside():
        assert b"p1v0" in Path("/proc/thread-self/net/dev").read_bytes()


def test_a_vlan_too_many_is_told(both: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """A trunk's frame in a VLAN for which there can be no bridge any more is dropped as `KERNEL`; the others pass."""
    monkeypatch.setattr("lamina_vswitch.engines.linux.bridge.kernel.MOST_BRIDGES", 2)
    bench = both[1]
    for slot in (1, 2):
        bench.engine.set_policy(slot, 0, PolicyInForce(trunk=Trunk(((1, 4094),), 0)), 0)
    tagged = [ALL_STATIONS + STATIONS[0] + bytes([0x81, 0, 0, vlan]) + b"\x08\0" + bytes(46) for vlan in (10, 11)]
    assert bench.reached(1, tagged[0]) == {2: [tagged[0]]}
    assert bench.reached(1, tagged[1]) == {} and bench.drops(1) == {"KERNEL": 1}
    assert bench.reached(1, tagged[0]) == {2: [tagged[0]]}


def test_what_the_kernel_sends_itself_is_handed_on(both: tuple[Bench, Bench]) -> None:
    """A frame that a program sends from the bridge's own device reaches every port, once the engine listens."""
    bench = both[1]
    sent = ALL_STATIONS + STATIONS[3] + b"\x88\xb5" + bytes(46)
    with bench.engine.kernel.namespace.inside():
        program = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with program:
        name = bench.engine.bridges_of(SWITCH).by_vlan[0].name
        index_of(bench.engine.kernel.netlink, name)  # asked for it, the kernel notices its carrier now, not later
        program.bind((name, 0))
        program.send(sent)
    heard: dict[int, list[bytes]] = {slot: [] for slot in bench.sinks}
    while not all(heard.values()):
        assert select.select([bench.engine.kernel.descriptor], [], [], 20)[0], heard
        bench.engine.listen_outside(0)
        for slot, sink in bench.sinks.items():
            heard[slot] += sink.take()
    assert heard == {slot: [sent] for slot in bench.sinks}


def test_lost_notices_are_made_good(both: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel told more than there was room for, the tables are read anew."""
    bench = both[1]
    ears = bench.engine.kernel._ears
    monkeypatch.setattr(ears, "heard", lambda: type(ears).heard(ears) and None)
    assert len(bench.reached(1, ALL_STATIONS + STATIONS[0] + b"\x08\0" + bytes(46))) == PORTS - 1
    assert bench.engine.tally(SWITCH, 0).mac_entries == 1
    assert bench.reached(2, STATIONS[0] + STATIONS[1] + b"\x08\0" + bytes(46)).keys() == {1}
