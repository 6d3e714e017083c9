"""Filters against a naive reading of trees and fields, and against anything that somebody may write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property.vswitch.filter_oracle import every_leaf, holds, packet, text, trees

from lamina_kit.errors import InvalidArgument
from lamina_kit.rng import Rng
from lamina_vswitch.domain.capture.expression import MAX_FILTER_BYTES, compile_filter


def some_frames(count: int) -> list[bytes]:
    """Returns frames by a seed."""
    rng = Rng("filters")
    return [
        packet(lambda of: of[rng.randrange(len(of))], lambda low, high: rng.bytes(low + rng.randrange(high - low + 1)))
        for _ in range(count)
    ]


FRAMES = some_frames(300)


def test_every_test_passes_what_the_fields_say() -> None:
    """Each kind of test, with each side, protocol and relation, passes just the frames whose fields meet it."""
    for leaf in every_leaf():
        passes = compile_filter(leaf.text)
        wrong = [frame.hex() for frame in FRAMES if passes(frame, len(frame)) is not holds(leaf, frame, [0])]
        assert not wrong, (leaf.text, wrong[:3])


@settings(max_examples=150, deadline=None)
@given(tree=trees)
def test_a_filter_passes_what_its_words_say(tree: Any) -> None:
    """An expression is read as a tree of tests, from left to right; behind `vlan` the tests look behind the tag."""
    passes = compile_filter(text(tree))
    for frame in FRAMES[:100]:
        assert passes(frame, len(frame)) is holds(tree, frame, [0]), text(tree)


WORDS = """
    and or not ( ) [ ] : ! && || = != >= src dst host net port portrange ether ip ip6 arp tcp udp icmp icmp6 vlan less
    greater broadcast multicast proto 1 80 0x10 010 10.0.0.1 10/8 ::1 02:00:00:00:00:01 80-90 4096 99999999999 é \\ip
"""


@settings(max_examples=150, deadline=None)
@given(words=st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join)))
@example("(" * 4096)
@example("not " * 1000 + "ip")
@example("ip or " * 600 + "ip")
@example("tcp[" + "1" * 4000)
@example("a" * 4097)
@example("port 08")
def test_whatever_is_written_is_a_filter_or_says_where_it_is_not(words: str) -> None:
    """Any text compiles or is refused with a position in it; what compiles answers for any bytes."""
    try:
        passes = compile_filter(words)
    except InvalidArgument as error:
        assert error.reason == "FILTER_MALFORMED" and "position" in error.message
        position = int(error.metadata["position"])
        assert 1 <= position <= max(len(words), MAX_FILTER_BYTES) + 1
        return
    for frame in (b"", b"\x01", bytes(13), bytes(14), bytes(100), b"\xff" * 1500):
        assert passes(frame, len(frame)) in (True, False)


@pytest.mark.parametrize(
    ("words", "position"),
    [
        ("tcp prt 80", 5),
        ("host 300.1.1.1", 6),
        ("ip and", 7),
        ("(ip", 4),
        ("ip)", 3),
        ("tcp[0:3] = 1", 5),
        ("tcp[0] 1", 8),
        ("vlan 4096", 6),
        ("net 10.1.2.3/8", 5),
        ("ip6 host 10.0.0.1", 10),
        ("tcp host 10.0.0.1", 5),
        ("icmp port 1", 6),
        ("port 1-2", 6),
        ("ip ; arp", 4),
    ],
)
def test_a_refusal_points_at_the_word(words: str, position: int) -> None:
    """The position counts from 1 and is where the word begins that cannot stand there."""
    with pytest.raises(InvalidArgument) as caught:
        compile_filter(words)
    assert f"position {position}:" in caught.value.message
