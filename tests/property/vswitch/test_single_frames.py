"""Frames that come one by one: the short cut of the engine does what the long way does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.frame_sinks import Keeper

from lamina_kit.rng import Rng
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.offload.features import ALL, Takes
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.domain.switch.forwarding import forward_known
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.engines.model import engine as engine_module
from lamina_vswitch.engines.model.engine import ModelEngine

SWITCH, PORTS, STATIONS = "hosts/h1/switches/s1", 5, 7
NS = 10**9
POLICIES = {
    "open": PolicyInForce(),
    "trunk": PolicyInForce(trunk=Trunk(((10, 20),))),
    "promiscuous": PolicyInForce(security=Security(promiscuous=True)),
    "forged": PolicyInForce(security=Security(reject_forged_transmits=True)),
}


class Blind:
    """An observer that sees nothing: with one, every frame takes the long way."""

    def wants(self, *what: object) -> bool:
        """Wants everything."""
        return True

    def missed(self, *what: object) -> None:
        """Misses nothing."""

    def passed(self, *what: object) -> None:
        """Look away."""

    def dropped(self, *what: object) -> None:
        """Look away."""


class Side:
    """One engine, what its ports received, and what it told. The device at the first port has these abilities."""

    def __init__(self, policies: Sequence[tuple[int, PolicyInForce]], takes: Takes | None = None) -> None:
        self.notices: list[Notice] = []
        self.engine = ModelEngine(self.notices.append)
        self.engine.add_switch(SWITCH, SwitchDefinition("s1", mtu_bytes=100, ageing_seconds=2, mac_limit=6))
        self.sinks = [Keeper(room=6) for _ in range(PORTS)]
        for slot, sink in enumerate(self.sinks, 1):
            self.engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 10, True)
            self.engine.attach(slot, sink, 0, takes if slot == 1 else None)
        for slot, (vlan, policy) in enumerate(policies, 1):
            self.engine.set_policy(slot, vlan, policy, 0)

    def seen(self, now_ns: int) -> tuple[Any, ...]:
        """Return all that can be seen, and take the frames out."""
        frames = [list(sink.frames) for sink in self.sinks]
        for sink in self.sinks:
            sink.frames.clear()
        switch = self.engine.switch_at(1)
        counters = [self.engine.counters(slot) for slot in range(1, PORTS + 1)]
        return frames, counters, list(switch.fdb.entries(now_ns)), self.notices


def frame(rng: Rng) -> bytes:
    """Return a frame between a few stations; some are to groups, tagged, short or long."""

    def mac() -> bytes:
        return b"\x02\0\0\0\0" + bytes((rng.randrange(STATIONS),))

    dst = (mac(), mac(), mac(), mac(), b"\xff" * 6)[rng.randrange(5)]
    kind = (b"\x08\x00",) * 8 + (b"\x81\x00\x00\x0a\x08\x00", b"\x81\x00\x00\x0b\x08\x00", b"\x88\xa8\x00\x0a")
    whole = dst + mac() + kind[rng.randrange(len(kind))] + bytes(50)
    return (whole, whole, whole, whole, whole, whole[: rng.randrange(20)], whole + bytes(34))[rng.randrange(7)]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_frame_alone_meets_the_rules_of_all(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames, drops, counters, ages, moves and events are those of an engine that takes no short cut."""
    ways: list[int] = []

    def counted(switch: Switch, port: Port, one: bytes, now_ns: int) -> int:
        ways.append(forward_known(switch, port, one, now_ns))
        return ways[-1]

    monkeypatch.setattr(engine_module, "forward_known", counted)
    for seed in range(30):
        rng = Rng(f"single/{policy}/{seed}")
        policies = [((10, 10, 10, 11)[rng.randrange(4)], PolicyInForce()) for _ in range(PORTS)]
        policies[rng.randrange(PORTS)] = (10, POLICIES[policy])
        takes = (None, ALL)[rng.randrange(2)]
        short, long = Side(policies, takes), Side(policies, takes)
        long.engine.observer = Blind()
        now = 0
        for _ in range(60):
            now += (0, 1, NS // 3, NS)[rng.randrange(4)]
            slot, one = 1 + rng.randrange(PORTS), frame(rng)
            assert short.engine.transmit(slot, [one], now) == long.engine.transmit(slot, [one], now)
            if not rng.randrange(4):
                assert short.seen(now) == long.seen(now)
    assert any(ways) == (policy in ("open", "forged"))
