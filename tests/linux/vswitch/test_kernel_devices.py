"""Ports that are devices of the kernel: two namespaces find an Ethernet there, and the kernel keeps the policies."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.linux.vswitch.device_bench import ALL, SWITCH, A, B, Bench, C, D, Sink, frame, opened, tag

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.domain.backend.definition import BackendState, Veth
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security, Shaping, StormControl
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.io.backends.veth import VethBackend

SECONDS = 20.0


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Returns a switch in the kernel."""
    with opened() as made:
        yield made


def arrive(bench: Bench, slot: int, count: int) -> None:
    """Wait until so many frames have arrived at a device; the kernel lets them go in its own time."""
    while count > 0:
        assert select.select([bench.ends[slot]], [], [], SECONDS)[0], f"{count} frames have not arrived"
        count -= len(bench.heard(slot))


def test_devices_and_ports_of_this_process_are_one_switch(bench: Bench) -> None:
    """Flooded and known frames pass in every direction; addresses, counters and a lost device are told."""
    bench.veth(1)
    bench.veth(2)
    bench.port(3)
    bench.send(1, frame(ALL, A))
    assert (bench.heard(2), bench.heard(3)) == ([frame(ALL, A)], [frame(ALL, A)])
    bench.send(2, frame(A, B))
    assert (bench.heard(1), bench.heard(3)) == ([frame(A, B)], [])
    assert bench.engine.transmit(3, [frame(A, C), frame(ALL, C)], 0) == 0
    assert (bench.heard(1), bench.heard(2)) == ([frame(A, C), frame(ALL, C)], [frame(ALL, C)])
    bench.send(1, frame(C, A))
    assert (bench.heard(2), bench.heard(3)) == ([], [frame(C, A)])
    assert [(e.mac, e.slot) for e in bench.engine.mac_entries(SWITCH, 0)] == [(A, 1), (B, 2), (C, 3)]
    counters = bench.engine.counters(1)
    assert (counters.received_frames, counters.received_bytes, counters.sent_frames) == (2, 120, 3)
    assert [bench.drops(slot) for slot in (1, 2, 3)] == [{}, {}, {}]
    assert bench.engine.copy(1, [frame(B, A)], 0) == 1  # of a mirror
    assert bench.heard(1) == [frame(B, A)]
    bench.network.run("ip link del dev2")
    assert (bench.veths[2].state, bench.veths[1].state) == (BackendState.FAILED, BackendState.OPEN)
    assert "dev2 went away" in bench.veths[2].detail
    assert bench.engine.counters(2).drops == {}


def test_a_device_that_is_unplugged_leaves_a_port_of_this_process(bench: Bench) -> None:
    """Its interface is gone, its addresses are forgotten, and a sink in its place gets frames."""
    bench.veth(1)
    bench.port(2)
    bench.engine.transmit(2, [frame(ALL, B)], 0)
    bench.send(1, frame(ALL, A), frame(ALL, A, tag(9)))
    counted = bench.engine.counters(1)
    assert (counted.received_frames, counted.sent_frames, bench.drops(1)) == (2, 1, {"VLAN_MISMATCH": 1})
    bench.veths[1].close()
    assert bench.engine.counters(1) == counted
    bench.engine.detach(1, bench.veths[1], 0)
    assert [entry.slot for entry in bench.engine.mac_entries(SWITCH, 0)] == [2]
    bench.sinks[1] = Sink()
    bench.engine.attach(1, bench.sinks[1], 0)
    bench.engine.transmit(2, [frame(ALL, B)], 0)
    assert bench.heard(1) == [frame(ALL, B)]
    assert bench.engine.counters(1).sent_frames == 2
    bench.ends.pop(1).close()
    bench.veth(3)  # again, under the same conditions
    bench.engine.remove_port(3, 0)
    bench.veths[3].close()
    assert bench.network.do(lambda: subprocess.run(["ip", "link", "show", "dev3"], capture_output=True).returncode)


def test_tags_pass_as_trunks_say(bench: Bench) -> None:
    """A trunk's frames keep their tags with priorities, the native VLAN has none, others are refused and counted."""
    bench.veth(1, 7, trunk=Trunk(((10, 11),), 7))
    bench.veth(2, 10, trunk=Trunk(((10, 10),), 10))
    bench.veth(3, 10)
    bench.port(4, 11)
    for slot in (1, 2, 3):
        bench.ends[slot].setsockopt(263, 8, 1)  # PACKET_AUXDATA
    bench.send(1, frame(ALL, A, tag(10, 5)), frame(ALL, A, tag(11, 3)), frame(ALL, A), frame(ALL, A, tag(12)))
    heard = {slot: bench.heard(slot) for slot in (2, 3, 4)}
    bare = frame(ALL, A, size=60)[:56]
    assert {slot: [each[:56] for each in frames] for slot, frames in heard.items()} == {2: [bare], 3: [bare], 4: [bare]}
    assert bench.drops(1) == {"VLAN_MISMATCH": 1}
    bench.send(2, frame(ALL, B))
    assert [each[:60] for each in bench.heard(1)] == [frame(ALL, B, tag(10))]
    bench.engine.transmit(4, [frame(ALL, C)], 0)
    assert [each[:60] for each in bench.heard(1)] == [frame(ALL, C, tag(11))]
    bench.let(1, 10, trunk=Trunk(((10, 10),), 10))
    bench.send(2, frame(ALL, B))
    assert bench.heard(1) == [frame(ALL, B)]
    assert [(e.vlan, e.mac, e.slot) for e in bench.engine.mac_entries(SWITCH, 0)] == [(10, B, 2), (11, C, 4)]


def test_the_kernel_keeps_the_security_of_a_port(bench: Bench) -> None:
    """Forged sources, DHCP servers, router advertisements and one address too many are dropped under their reasons."""
    bench.veth(1, security=Security(reject_forged_transmits=True))
    bench.veth(2)
    bench.send(1, frame(ALL, A), frame(ALL, B), frame(ALL, A))
    assert bench.heard(2) == [frame(ALL, A)] * 2
    bench.let(1, mac=C, security=Security(reject_forged_transmits=True))
    bench.send(1, frame(ALL, A), frame(ALL, C))
    assert (bench.heard(2), bench.drops(1)) == ([frame(ALL, C)], {"FORGED_TRANSMIT": 2})
    bench.let(1, security=Security(dhcp_guard=True, router_guard=True))
    offer = b"\x08\x00\x45\0\0\x1c" + bytes(4) + b"\x40\x11\0\0" + bytes(8) + b"\0\x43\0\x44\0\x08\0\0"
    asking = offer.replace(b"\0\x43\0\x44", b"\0\x44\0\x43")
    advertisement = b"\x86\xdd\x60\0\0\0\0\x10\x3a\xff" + bytes(32) + b"\x86" + bytes(15)
    for body in (offer, asking, advertisement):
        bench.send(1, frame(ALL, A, body=body, size=80))
    assert bench.heard(2) == [frame(ALL, A, body=asking, size=80)]
    bench.let(1, security=Security(mac_limit=2))
    bench.send(1, *(frame(ALL, source) for source in (A, B, D, A)))
    assert [each[6:12] for each in bench.heard(2)] == [A, B, A]
    assert bench.drops(1) == {"FORGED_TRANSMIT": 2, "MAC_LIMIT": 1, "DHCP_GUARD": 1, "ROUTER_GUARD": 1}
    assert D not in [entry.mac for entry in bench.engine.mac_entries(SWITCH, 0) if entry.slot == 1]


def test_the_kernel_calms_storms_and_keeps_ports_apart(bench: Bench) -> None:
    """A second's worth of broadcasts passes, then the rate; isolated ports hear others, not each other."""
    bench.veth(1, storm_control=StormControl(10, 20))
    bench.veth(2, isolated=True)
    bench.veth(3, isolated=True)
    group = b"\x01\x00\x5e\x00\x00\x05"
    bench.send(1, *(frame(dst, A) for dst in (ALL, group) for _ in range(40)))
    passed = [each[:6] for each in bench.heard(2)]
    assert (10 <= passed.count(ALL) < 40, 20 <= passed.count(group) < 40) == (True, True)  # rates go on meanwhile
    assert bench.drops(1) == {"STORM": 80 - len(passed)}
    bench.heard(3)
    bench.send(2, frame(ALL, B))
    assert (bench.heard(1), bench.heard(3)) == ([frame(ALL, B)], [])


def test_the_kernel_shapes(bench: Bench) -> None:
    """What leaves, and what comes in, waits for its rate and is lost where no room is."""
    bench.veth(1)
    bench.veth(2, egress_shaping=Shaping(800_000, burst=10_000))
    began = time.monotonic()
    bench.send(1, *(frame(ALL, A, size=1000) for _ in range(60)))
    arrive(bench, 2, 60)
    assert time.monotonic() - began > 0.45  # 60,000 bytes less the bucket, at 100,000 a second
    bench.let(2, egress_shaping=Shaping(8_000, burst=10_000))
    bench.send(1, *(frame(ALL, A, size=1400) for _ in range(1400)))
    lost = bench.drops(2)["SHAPED"]
    assert 200 < lost < 400
    bench.let(2)
    assert bench.drops(2)["SHAPED"] > 1300  # with those that waited
    bench.heard(2)
    bench.let(1, ingress_shaping=Shaping(800_000, 8_000_000, 10_000))
    began = time.monotonic()
    bench.send(1, *(frame(ALL, B, size=1000) for _ in range(30)))
    arrive(bench, 2, 30)
    assert time.monotonic() - began > 0.18
    assert bench.drops(1) == {}
    bench.let(1)
    bench.send(1, frame(ALL, B))
    assert bench.heard(2) == [frame(ALL, B)]
    assert [entry.mac for entry in bench.engine.mac_entries(SWITCH, 0)] == [A, B]


def test_longer_frames_pass_when_the_switch_lets_them(bench: Bench) -> None:
    """The end of a device in the kernel follows the MTU of its switch; its interface is its user's."""
    bench.veth(1)
    bench.port(2)
    bench.network.run("ip link set dev1 mtu 9000")
    long = frame(ALL, A, size=4000)
    with pytest.raises(OSError, match="No buffer space"):
        bench.send(1, long)
    assert bench.heard(2) == []
    bench.engine.update_switch(SWITCH, SwitchDefinition("s", mtu_bytes=9000), 0)
    bench.send(1, long)
    assert bench.heard(2) == [long]


def test_policies_that_the_kernel_cannot_keep_are_refused(bench: Bench) -> None:
    """Before a device is plugged in, and while it is; the port stays what it was."""
    bench.port(2)
    with pytest.raises(FailedPrecondition) as refused:
        bench.veth(1, security=Security(promiscuous=True))
    assert (refused.value.reason, "security.promiscuous" in refused.value.message) == ("POLICY_NOT_IN_KERNEL", True)
    bench.veths.clear()
    bench.veth(3)
    with pytest.raises(FailedPrecondition):
        bench.engine.check_policy(3, PolicyInForce(trunk=Trunk()))
    bench.engine.check_policy(2, PolicyInForce(trunk=Trunk()))
    with pytest.raises(FailedPrecondition) as taken:
        bench.network.do(lambda: VethBackend(bench.engine, 2, Veth("dev3")))
    assert taken.value.reason == "DEVICE_IN_USE"
    bench.send(3, frame(ALL, A))
    assert bench.heard(2) == [frame(ALL, A)]
