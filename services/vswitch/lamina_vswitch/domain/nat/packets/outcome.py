"""What a translator made of a packet."""

from __future__ import annotations

from typing import NamedTuple

from lamina_vswitch.domain.frames.drop_reasons import DropReason


class IcmpError(NamedTuple):
    """An error that the router is to send about a packet that came, if its rate allows: type and code of ICMP."""

    type: int
    code: int
    packet: bytes


class Outcome(NamedTuple):
    """What a translator made of a packet.

    `own` are packets that no entry translates: they are for the router itself, or go on as they are. `inside` are
    packets that go on by the router's table, `outside` those that leave at the uplink. `drops` are packets that end
    here, each with its reason; `error` tells their sender.
    """

    own: tuple[bytes, ...] = ()
    inside: tuple[bytes, ...] = ()
    outside: tuple[bytes, ...] = ()
    drops: tuple[tuple[DropReason, bytes], ...] = ()
    error: IcmpError | None = None


NOTHING = Outcome()
"""The packet waits, or went where packets do not go: to a host socket."""


def dropped(reason: DropReason, packet: bytes, error: IcmpError | None = None) -> Outcome:
    """Return the outcome of a packet that ends here."""
    return Outcome(drops=((reason, packet),), error=error)
