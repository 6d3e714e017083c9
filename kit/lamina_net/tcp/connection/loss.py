"""What a sender knows about losses, and about the marks that stand for them.

    OPEN ── a record is lost ──> FAST ── everything up to `point` acknowledged ──> OPEN
      └──── timeout ──> LOSS <── timeout ──┘   └── everything up to `point` acknowledged ──> OPEN

What is done about it is in `processing/recovery.py` and `processing/ecn.py`.
"""

from __future__ import annotations

import enum


class Phase(enum.IntEnum):
    """What a sender is busy with."""

    OPEN = 0
    FAST = 1
    LOSS = 2


class Doubt(enum.IntEnum):
    """Whether a timeout may have been none, and which acknowledgment after it will tell. Source: RFC 5682, 2.1."""

    NONE = 0
    FIRST = 1
    SECOND = 2


class Recovery:
    """The phase of a sender, and when it ends."""

    __slots__ = (
        "at_once", "before", "doubt", "duplicates", "phase", "point", "stalled", "tail", "tail_again",
    )  # fmt: skip

    def __init__(self) -> None:
        self.phase = Phase.OPEN
        self.point = 0
        """The number that ends the phase; afterwards, the last one that did (RFC 6582's `recover`)."""
        self.duplicates = 0
        self.at_once = False
        """The next lost record goes whatever the window says (RFC 6675, 5, step 4.3; RFC 6582, 3.2, step 2)."""
        self.doubt = Doubt.NONE
        self.before: tuple[int, ...] = ()
        """The congestion control before a timeout that is doubted."""
        self.tail = 0
        """What was sent when a tail probe went whose answer is awaited, 0 for none; see `tail`."""
        self.tail_again = False
        """Whether that probe carried what had been sent before."""
        self.stalled = False
        """A timeout passed and nothing was acknowledged since: another one leaves the threshold (RFC 5681, 3.1)."""


class Marking:
    """What one connection knows about marks. `is_on`: both ends take part."""

    __slots__ = ("asked", "echo", "is_on", "point", "reduced")

    def __init__(self) -> None:
        self.is_on = False
        self.asked = False
        self.echo = False
        """A mark came: every ACK says so until the peer has slowed down."""
        self.reduced = False
        """We have slowed down: the next new bytes say so."""
        self.point = 0
        """What was sent below it, was sent before we slowed down: further echoes tell nothing new."""
