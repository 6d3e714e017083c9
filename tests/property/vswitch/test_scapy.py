"""Scapy as a rude guest and as a judge: its frames break nothing, and what ours sends it would have built the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from tests.property.net.test_stack_fuzz import busy_host, expect_alive
from tests.property.vswitch.scapy_frames import adversarial, rebuilt
from tests.property.vswitch.test_router_fuzz import GUEST_MAC, MAC, RIGHT, SECOND_NS, made
from tests.unit.net.lan import SECOND, Lan
from tests.unit.net.test_stack import PING, opened, ping
from tests.unit.net.test_stack_tcp import connecting, listening, transfer

from lamina_kit.rng import Rng
from lamina_net.ip.reassembly import MAX_DATAGRAMS
from lamina_net.tcp.interface import Endpoint
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.settings import LoopDetection, PolicyInForce, Security, StormControl
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.engines.model.engine import ModelEngine

FRAMES = 600
SEEDS = (1, 2)


def ether(dst: bytes, src: bytes) -> Any:
    """Returns the head of scapy's frames."""
    return Ether(dst=dst.hex(":"), src=src.hex(":"))


class Sink:
    """A device that counts what it gets."""

    def __init__(self) -> None:
        self.frames = 0

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take all."""
        self.frames += len(frames)
        return len(frames)

    def link_changed(self, up: bool) -> None:
        """Nothing to do."""

    def removed(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_switch_with_every_guard_counts_each_frame(seed: int) -> None:
    """Each frame passes or is dropped with a reason, and the table keeps its limit."""
    rng = random.Random(seed)
    engine = ModelEngine(lambda notice: None)
    engine.add_switch("s", SwitchDefinition("s", mac_limit=16))
    guards = Security(dhcp_guard=True, router_guard=True, source_guard=True, reject_mac_changes=True)
    policies = [
        PolicyInForce(),
        PolicyInForce(security=guards),
        PolicyInForce(trunk=Trunk(((1, 2000),), 0, provider_tags=True)),
        PolicyInForce(storm_control=StormControl(broadcast=50)),
    ]
    sinks = [Sink() for _ in policies]
    for slot, (policy, sink) in enumerate(zip(policies, sinks, strict=True), 1):
        engine.add_port("s", slot, f"p{slot}", 0, True)
        engine.attach(slot, sink, 0)
        engine.set_policy(slot, 0, policy, 0)
    engine.set_loop_detection("s", LoopDetection(), Rng(seed), 0)
    for number in range(FRAMES):
        source = rng.choice((GUEST_MAC, rng.randbytes(6)))
        frame = adversarial(rng, ether(rng.choice((MAC, b"\xff" * 6)), source), "10.0.2.2", "10.0.2.1")
        slot, now_ns = rng.randint(1, 4), number * 1_000_000
        before, heard = engine.counters(slot), sum(sink.frames for sink in sinks)
        dropped = engine.transmit(slot, [frame], now_ns)
        after = engine.counters(slot)
        assert after.received_frames == before.received_frames + 1
        assert sum(after.drops.values()) == sum(before.drops.values()) + dropped
        assert (dropped == 0) == (sum(sink.frames for sink in sinks) > heard), "it is dropped, or somebody gets it"
    assert len(engine.mac_entries("s", FRAMES * 1_000_000)) <= 16
    assert all(sink.frames for sink in sinks)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_router_outlives_them_and_answers_in_order(seed: int) -> None:
    """With DHCP, DNS and TCP: nothing raises, answers are such as scapy builds, and right frames still are answered."""
    rng, drops = random.Random(seed), list[DropReason]()
    router = made(drops)
    now, answers = SECOND_NS, 0
    for _ in range(FRAMES):
        dst = rng.choice((MAC, MAC, b"\xff" * 6))
        frame = adversarial(rng, ether(dst, GUEST_MAC), "10.0.2.2", rng.choice(("10.0.2.1", "10.0.2.1", "8.8.8.8")))
        for answer in router.receive(frame, now) + router.tick(now):
            assert rebuilt(answer) == answer
            answers += 1
        now += SECOND_NS // 200
    assert answers and set(drops) >= {DropReason.HOST_ONLY}
    now += 120 * SECOND_NS
    router.tick(now)
    assert router.receive(RIGHT[0], now)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_host_outlives_them(seed: int) -> None:
    """Open ports of UDP and TCP, overlapping pieces of datagrams: bounds hold, and a ping is answered afterwards."""
    rng = random.Random(seed)
    lan, host = busy_host()
    for _ in range(FRAMES):
        frame = adversarial(rng, ether(host.mac, bytes.fromhex("0200000000ee")), "10.0.0.9", "10.0.0.1")
        lan.inject(host, frame)
        lan.run(rng.choice((0, 1_000_000)))
        assert len(host.stack.internet.reassembly) <= MAX_DATAGRAMS
    expect_alive(lan, host)
    lan.run(600 * SECOND)
    assert len(host.stack.internet.reassembly) == 0


def test_scapy_would_have_built_what_hosts_send() -> None:
    """ARP, echo in fragments, TCP with its options both ways over a bad wire: lengths and sums of every frame."""
    lan = Lan(loss=0.02, seed=3)
    a, b = lan.hosts
    ping(lan, a, b.address, PING + bytes(4000))
    listener = listening(b, Endpoint(0, 80))
    client = connecting(lan, a, Endpoint(b.address, 80))
    lan.run(10 * SECOND)
    server = opened(b.stack.sockets.accept(listener, lan.now_ns))
    transfer(lan, (a, client), (b, server), bytes(40_000))
    sent = a.sent + b.sent
    assert len(sent) > 50 and all(rebuilt(frame) == frame for frame in sent)
    spoilt = [frame[:24] + b"\xff\xfe" + frame[26:] for frame in sent if frame[12:14] == b"\x08\x00"]  # IPv4's checksum
    assert all(rebuilt(frame) != frame for frame in spoilt)
