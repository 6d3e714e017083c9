"""Between the contract and the domain: the messages of holds."""

from __future__ import annotations

from dataclasses import dataclass

from lamina.vswitch.v1 import rings_pb2 as pb

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument
from lamina_vswitch.convert.streams import batch_frames
from lamina_vswitch.domain.frames.header import is_station, parse_mac
from lamina_vswitch.domain.port.hold import DEFAULT_HOLD_FRAMES, HOLD_FRAMES

MOST_ANNOUNCED = 64


@dataclass(frozen=True, slots=True)
class Release:
    """How a hold ends: handle, whether its frames go to the device, and the addresses to announce."""

    slot: int
    generation: int
    delivers: bool
    announced: tuple[bytes, ...]


def hold_frames(request: pb.QuiescePortRequest) -> int:
    """Return how many frames to hold."""
    wanted = request.hold_frames or DEFAULT_HOLD_FRAMES
    with Checks() as check:
        check.range("hold_frames", wanted, *HOLD_FRAMES)
    return wanted


def release(request: pb.ReleasePortRequest) -> Release:
    """Return how a hold ends, of the first message."""
    if request.WhichOneof("message") != "open":
        raise _not_opened("The first message of ReleasePort is not open.")
    wanted = request.open
    kinds = pb.ReleasePortOpen.Disposition
    macs = [parse_mac(text) for text in wanted.announce_mac_addresses[: MOST_ANNOUNCED + 1]]
    with Checks() as check:
        check.one_of("open.disposition", wanted.disposition, tuple(kinds.values()))
        check.that(len(macs) <= MOST_ANNOUNCED, "open.announce_mac_addresses", f"are more than {MOST_ANNOUNCED}")
        for number, mac in enumerate(macs):
            ok = mac is not None and is_station(mac)
            check.that(ok, f"open.announce_mac_addresses[{number}]", "is not an address such as 02:00:00:00:00:01")
    delivers = wanted.disposition != pb.ReleasePortOpen.DISPOSITION_DISCARD
    announced = tuple(mac for mac in macs if mac is not None)
    return Release(wanted.handle.id, wanted.handle.generation, delivers, announced)


def released_frames(request: pb.ReleasePortRequest) -> list[bytes]:
    """Return the frames of a later message."""
    if request.WhichOneof("message") != "batch":
        raise _not_opened("A message of ReleasePort after the first carries no batch.")
    return batch_frames(request.batch)


def _not_opened(what: str) -> InvalidArgument:
    return InvalidArgument(
        what,
        reason="RELEASE_NOT_OPENED",
        next_step="Send open with the handle of the port once, as the first message, and batches after it.",
    )
