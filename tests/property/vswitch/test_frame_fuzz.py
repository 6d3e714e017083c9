"""The frame parser takes any bytes: it answers with a header that lies within the frame, or with a reason."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.frames.header import Header, parse
from lamina_vswitch.engines.model.engine import ModelEngine

TAGGED = st.builds(lambda head, rest: head[:12].ljust(12, b"\0") + b"\x81\x00" + rest, st.binary(), st.binary())
ANY = st.one_of(st.binary(max_size=64), st.binary(min_size=580, max_size=620), TAGGED)


@given(ANY)
def test_parsing_never_raises_and_never_invents_bytes(frame: bytes) -> None:
    """A header's fields are slices of the frame; a frame that is refused breaks a bound."""
    parsed = parse(frame, 576)
    if isinstance(parsed, Header):
        assert 14 <= len(frame) <= 594
        assert parsed.dst + parsed.src == frame[:12]
        assert parsed.tag_vid is None or 0 <= parsed.tag_vid <= 4095
    else:
        assert parsed in (DropReason.RUNT, DropReason.OVERSIZE, DropReason.VLAN_TRUNCATED)
        assert len(frame) < 18 or len(frame) > 590


@given(st.lists(ANY, max_size=20))
def test_every_frame_is_delivered_or_counted_under_a_reason(frames: list[bytes]) -> None:
    """Nothing disappears: what goes in comes out at the other port or is in its drop counters."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch("hosts/h1/switches/s1", SwitchDefinition("s1", 576))
    sink = _Sink()
    for slot in (1, 2):
        engine.add_port("hosts/h1/switches/s1", slot, f"hosts/h1/switches/s1/ports/p{slot}", 0, True)
        engine.attach(slot, sink, 0)
    dropped = engine.transmit(1, frames, 0)
    counters = engine.counters(1)
    assert dropped == sum(counters.drops.values())
    assert counters.received_frames == len(frames) == sink.taken + dropped


class _Sink:
    """Counts what it takes."""

    def __init__(self) -> None:
        self.taken = 0

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take everything."""
        self.taken += len(frames)
        return len(frames)

    def link_changed(self, up: bool) -> None:
        """Nothing here changes a link."""

    def removed(self) -> None:
        """Nothing here removes a port."""
