"""What stands between the switch and its devices costs nothing once the devices that wanted it are gone."""

from __future__ import annotations

import pytest
from tests.frame_sinks import Keeper
from tests.offload_frames import packet

from lamina_net.offload.segments import with_sum
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.metadata import NEEDS_CHECKSUM, Offload, laden
from lamina_vswitch.domain.offload.features import ALL
from lamina_vswitch.domain.policy.settings import PolicyInForce, Shaping
from lamina_vswitch.domain.switch.topology import Port
from lamina_vswitch.engines.model.egress import Egress
from lamina_vswitch.engines.model.engine import ModelEngine

SWITCH, NS = "hosts/h1/switches/s1", 10**9


def engine_with(ports: int) -> tuple[ModelEngine, list[Keeper]]:
    """Return an engine with a switch whose devices take complete frames only, but for the first, and the devices."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch(SWITCH, SwitchDefinition("s1"))
    sinks = [Keeper() for _ in range(ports)]
    for slot, sink in enumerate(sinks, 1):
        engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", 0, True)
        engine.attach(slot, sink, 0, ALL if slot == 1 else None)
    return engine, sinks


def test_nothing_is_paid_once_abilities_filters_and_holds_are_gone() -> None:
    """Each alone keeps a host busy; a hold that outlives its device does too."""
    egress = Egress(lambda *what: None)
    port = Port(1, "p1", 0, True)
    for begin, end in (
        (lambda: egress.attached(1, ALL), lambda: egress.detached(1)),
        (lambda: egress.filtered(1), lambda: egress.removed(1)),
        (lambda: egress.quiesce(port, None, 5, 0), lambda: egress.unhold(1)),
    ):
        assert not egress.busy
        begin()
        assert egress.busy
        end()
        egress.settle(lambda: False)
    assert not egress.busy


@pytest.mark.parametrize("in_time", [True, False])
def test_a_frame_left_unfinished_in_a_shaper_is_finished_later(in_time: bool) -> None:
    """Its device ends while it waits, in time or with the shaper; the receiver gets it whole, and the host is idle."""
    engine, sinks = engine_with(2)
    engine.set_policy(2, 0, PolicyInForce(egress_shaping=Shaping(8_000, burst=9_018)), 0)
    frame = laden(packet(4, 17, bytes(900)), Offload(NEEDS_CHECKSUM, sum_start=34, sum_offset=6), None)
    engine.transmit(1, [frame] * 20, 1)
    at_once = len(sinks[1].frames)
    engine.detach(1, sinks[0], 2)
    assert 0 < at_once < 20
    if in_time:
        engine.advance(60 * NS)
    else:
        engine.set_policy(2, 0, PolicyInForce(), 3)
    assert [type(one) for one in sinks[1].frames] == [bytes] * 20
    assert set(sinks[1].frames) == {with_sum(bytes(frame), 34, 6)}
    assert not engine._egress.busy
