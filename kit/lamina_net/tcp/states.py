"""The states of a connection. Source: RFC 9293, 3.3.2."""

from __future__ import annotations

import enum


class State(enum.IntEnum):
    """Where a connection is between its first SYN and its last ACK. The order is that of a life, so it compares."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    CLOSE_WAIT = 5
    """The peer has closed its half; ours still sends."""
    FIN_WAIT_1 = 6
    """Our half is closed, our FIN is not acknowledged."""
    FIN_WAIT_2 = 7
    """Our FIN is acknowledged; the peer may send on."""
    CLOSING = 8
    """Both closed at once; our FIN is not acknowledged."""
    LAST_ACK = 9
    """The peer closed first, then we; our FIN is not acknowledged."""
    TIME_WAIT = 10
    """Both halves are closed; what is still on its way must die first."""


SENDING = frozenset({State.ESTABLISHED, State.CLOSE_WAIT})
"""States in which the user may add bytes."""

RECEIVING = frozenset({State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2})
"""States in which the peer may add bytes."""

CLOSING_DOWN = frozenset({State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK})
"""States in which our FIN is on its way."""
