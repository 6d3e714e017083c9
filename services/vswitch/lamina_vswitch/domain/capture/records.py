"""Records of what a switch did with frames that passed: a few of many, the newest kept.

Recorded is every frame that carries a sampled trace, and at most one a second for each port and outcome: passed, or
dropped for a reason. So an attacker fills the book no faster than anybody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.sampling import Sampler
from lamina_vswitch.domain.switch.admission import Rule
from lamina_vswitch.domain.switch.decision import Decision
from lamina_vswitch.domain.switch.trace import Step, Trace

MAX_RECORDS = 4096
HEAD_BYTES = 128
TRACE_ID_BYTES, FLAGS_AT, SAMPLED = 16, 24, 1
"""Parts of a trace record: the trace id, and where its flags stand."""


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What became of one frame.

    `number` counts the records of a switch from 1; `port` is the name of the port where the frame entered, `head` its
    first 128 bytes as they entered, `trace_id` 32 hexadecimal digits or nothing.
    """

    number: int
    time_ns: int
    port: str
    head: bytes
    length: int
    trace_id: str
    told: Trace


class RecordBook:
    """The last records of each switch, which are known by their names."""

    def __init__(self) -> None:
        self._records: dict[str, deque[FrameRecord]] = {}
        self._made: dict[str, int] = {}
        self._sampler = Sampler()

    def is_due(self, port: str, outcome: str, now_ns: int) -> bool:
        """Tell whether a frame of this port and outcome is the first in a second; if so, the second begins."""
        return self._sampler.sample(port, outcome, 1, now_ns) > 0

    def add(self, switch: str, port: str, frame: bytes, told: Trace, now_ns: int) -> None:
        """Keep what was told of a frame that entered at a port; the oldest makes room."""
        number = self._made[switch] = self._made.get(switch, 0) + 1
        kept = self._records.setdefault(switch, deque(maxlen=MAX_RECORDS))
        told = replace(told, frame=b"")
        kept.append(FrameRecord(number, now_ns, port, frame[:HEAD_BYTES], len(frame), trace_id(frame), told))

    def newest_first(self, switch: str) -> Iterable[FrameRecord]:
        """Yield the records of a switch."""
        return reversed(self._records.get(switch, ()))

    def forget_port(self, port: str) -> None:
        """Drop what is kept of the seconds of a port that is gone; its records stay."""
        self._sampler.forget(port)

    def forget_switch(self, switch: str) -> None:
        """Drop the records of a switch that is gone."""
        self._records.pop(switch, None)
        self._made.pop(switch, None)


def trace_id(frame: bytes) -> str:
    """Return the id of the trace that a frame carries, as 32 hexadecimal digits; empty without one."""
    record: bytes | None = getattr(frame, "record", None)
    return record[:TRACE_ID_BYTES].hex() if record and any(record[:TRACE_ID_BYTES]) else ""


def is_sampled(frame: bytes) -> bool:
    """Tell whether a frame carries a sampled trace."""
    record: bytes | None = getattr(frame, "record", None)
    return bool(record and record[FLAGS_AT] & SAMPLED and any(record[:TRACE_ID_BYTES]))


def lost_at(port: str, reason: DropReason) -> Trace:
    """Return the chain of a frame that was lost at a port, without one of the switch's rules."""
    return Trace(Decision(Rule.PORT_REFUSED, drop=reason), 0, (), b"", (_loss(port, reason),))


def lost_behind(told: Trace, port: str, reason: DropReason) -> Trace:
    """Return a chain that ends with a loss at the port where the frame would have left."""
    decision = told.decision._replace(drop=reason, outputs=())
    return replace(told, decision=decision, outputs=(), frame=b"", steps=(*told.steps, _loss(port, reason)))


def _loss(port: str, reason: DropReason) -> Step:
    return Step("port", f"port.drop_{reason.name.lower()}", f"{EXPLANATION[reason]}: {port}")
