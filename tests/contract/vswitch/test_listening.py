"""Which multicasts an engine keeps from a device that said what it listens to."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.port.receive_filter import ReceiveFilter

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
GROUP, OTHER = bytes.fromhex("01005e000005"), bytes.fromhex("01005e000006")
BODY = b"\x08\x00" + bytes(46)


@pytest.mark.parametrize(
    ("listening", "allowed", "heard"),
    [
        (ReceiveFilter(B, frozenset({GROUP})), False, [GROUP]),
        (ReceiveFilter(B, all_groups=True), False, [GROUP, OTHER]),
        (ReceiveFilter(B, promiscuous=True), False, []),
        (ReceiveFilter(B, promiscuous=True), True, [GROUP, OTHER]),
        (ReceiveFilter(B), True, []),
    ],
)
def test_multicasts_reach_who_wants_them(
    bench: Any, listening: ReceiveFilter, allowed: bool, heard: list[bytes]
) -> None:
    """Named groups, all of them, or everything if the security policy lets a device that asks for it see that."""
    made = bench()
    for slot in (1, 2):
        made.port(slot)
    made.engine.set_policy(2, 0, PolicyInForce(security=Security(promiscuous=allowed)), 0)
    made.engine.listen(2, listening)
    made.engine.transmit(1, [GROUP + A + BODY, OTHER + A + BODY], 0)
    assert [frame[:6] for frame in made.sinks[2].take()] == heard


def test_copies_of_a_mirror_are_not_filtered(bench: Any) -> None:
    """A port that only receives copies gets those of multicasts, whatever its device listens to."""
    made = bench()
    made.port(1)
    made.engine.listen(1, ReceiveFilter(B))
    made.engine.set_copies_only(1, True, 0)
    made.engine.copy(1, [GROUP + A + BODY], 0)
    assert made.sinks[1].take() == [GROUP + A + BODY]
