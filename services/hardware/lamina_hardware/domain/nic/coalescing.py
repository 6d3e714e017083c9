"""Large receive offload: TCP frames of one flow become one, while nothing that a receiver could tell apart is lost.

A frame is joined to the one before when it is the next of its flow in order, carries data, has no flag but ACK and PSH,
the same options byte by byte, the same hop limit and class, and right checksums. Whatever else comes of a flow first
pushes out what is held of it, so that a flow's frames keep their order.

Source: Intel 82599 datasheet 331520, chapter 7.11 (receive side coalescing); the rules are those of Linux's GRO.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_net.offload.headers import (
    ACK,
    PSH,
    TCP,
    Headers,
    fill_ipv4_sum,
    fill_transport_sum,
    is_ipv4_sum_good,
    is_transport_sum_good,
)

MOST_BYTES = 65535
"""Longest IP packet."""

MOST_FLOWS = 32
"""Flows that are held at a time, as on the 82599."""


@dataclass(slots=True)
class _Held:
    """Frames of one flow that are one so far."""

    frame: bytearray
    headers: Headers
    next_sequence: int
    count: int = 1
    pushed: bool = field(default=False)


@dataclass(frozen=True, slots=True)
class Joined:
    """A frame to deliver; `count` is how many came in it, `headers` its offsets."""

    frame: bytes
    headers: Headers
    count: int


class Coalescer:
    """What one receive queue holds back. Held frames leave by `flush`, or when something makes them."""

    def __init__(self) -> None:
        self._flows: dict[bytes, _Held] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self._flows

    @property
    def held_frames(self) -> int:
        """How many frames are held."""
        return sum(held.count for held in self._flows.values())

    def take(self, frame: bytes, headers: Headers) -> list[Joined]:
        """Takes a frame in; returns what is to be delivered now, in order."""
        if headers.protocol != TCP:
            return [Joined(frame, headers, 1)]
        flow = _flow(frame, headers)
        held = self._flows.get(flow)
        if not _is_candidate(frame, headers):
            before = [self._release(flow)] if held is not None else []
            return [*before, Joined(frame, headers, 1)]
        out: list[Joined] = []
        if held is not None and not _is_next(held, frame, headers):
            out.append(self._release(flow))
            held = None
        if held is None:
            if len(self._flows) >= MOST_FLOWS:
                out.append(self._release(next(iter(self._flows))))
            held = self._flows[flow] = _Held(bytearray(frame[: headers.end]), headers, _after(frame, headers))
        else:
            _join(held, frame, headers)
        if frame[headers.l4 + 13] & PSH:
            held.pushed = True
            out.append(self._release(flow))
        return out

    def flush(self) -> list[Joined]:
        """Returns all that is held, the flow that began first before others."""
        return [self._release(flow) for flow in list(self._flows)]

    def _release(self, flow: bytes) -> Joined:
        held = self._flows.pop(flow)
        frame, old = held.frame, held.headers
        if held.count == 1:
            return Joined(bytes(frame), old, 1)
        headers = Headers(old.l3, old.version, old.l4, old.protocol, old.payload, len(frame))
        if held.pushed:
            frame[old.l4 + 13] |= PSH
        if old.version == 4:
            frame[old.l3 + 2 : old.l3 + 4] = (len(frame) - old.l3).to_bytes(2, "big")
            fill_ipv4_sum(frame, old.l3, old.l4 - old.l3)
        else:
            frame[old.l3 + 4 : old.l3 + 6] = (len(frame) - old.l4).to_bytes(2, "big")
        fill_transport_sum(frame, headers)
        return Joined(bytes(frame), headers, held.count)


def _flow(frame: bytes, headers: Headers) -> bytes:
    """Returns what frames of one flow share: link header with its tag, addresses, ports."""
    first, size = (12, 8) if headers.version == 4 else (8, 32)
    return frame[: headers.l3] + frame[headers.l3 + first : headers.l3 + first + size] + frame[headers.l4 :][:4]


def _is_candidate(frame: bytes, headers: Headers) -> bool:
    flags = frame[headers.l4 + 13]
    if flags & ~PSH != ACK or headers.end == headers.payload:
        return False
    if headers.version == 4 and (headers.l4 - headers.l3 != 20 or not is_ipv4_sum_good(frame, headers)):
        return False
    return is_transport_sum_good(frame, headers)


def _after(frame: bytes, headers: Headers) -> int:
    sequence = int.from_bytes(frame[headers.l4 + 4 : headers.l4 + 8], "big")
    return (sequence + headers.end - headers.payload) & 0xFFFFFFFF


def _is_next(held: _Held, frame: bytes, headers: Headers) -> bool:
    old = held.headers
    if int.from_bytes(frame[headers.l4 + 4 : headers.l4 + 8], "big") != held.next_sequence:
        return False
    if len(held.frame) + headers.end - headers.payload - old.l3 > MOST_BYTES:
        return False
    l3, l4 = headers.l3, headers.l4
    if (
        headers.payload - l4 != old.payload - old.l4
        or frame[l4 + 20 : headers.payload] != held.frame[l4 + 20 : old.payload]
    ):
        return False
    if headers.version == 4:  # class, don't-fragment, time to live
        return all(frame[l3 + at] == held.frame[l3 + at] for at in (1, 6, 8))
    return frame[l3 : l3 + 4] == held.frame[l3 : l3 + 4] and frame[l3 + 7] == held.frame[l3 + 7]


def _join(held: _Held, frame: bytes, headers: Headers) -> None:
    held.frame += frame[headers.payload : headers.end]
    # acknowledgement number and window are those of the latest frame
    held.frame[headers.l4 + 8 : headers.l4 + 12] = frame[headers.l4 + 8 : headers.l4 + 12]
    held.frame[headers.l4 + 14 : headers.l4 + 16] = frame[headers.l4 + 14 : headers.l4 + 16]
    held.next_sequence = _after(frame, headers)
    held.count += 1
