"""The sockets that hear the frames of devices of the kernel: what they cannot show is counted."""

from __future__ import annotations

import errno
import struct
from typing import Any

from lamina_vswitch.domain.capture.observer import Direction
from lamina_vswitch.engines.linux.devices.watches import _taken

STAMP = (1, 35, struct.pack("=qq", 2, 3))
FRAME = bytes(12) + b"\x88\xb5" + bytes(46)


class Ending:
    """A packet socket that says these things, one after the other; then nothing waits."""

    def __init__(self, *said: Any) -> None:
        self._said = list(said)

    def recvmsg(self, size: int, told: int) -> Any:
        """Say the next."""
        each = self._said.pop(0) if self._said else BlockingIOError(errno.EAGAIN, "")
        if isinstance(each, OSError):
            raise each
        return each


def test_a_frame_that_has_no_header_is_counted_and_the_next_is_read() -> None:
    """The socket drops a frame whose work it cannot describe, and says EINVAL in its place."""
    good = (bytes(10) + FRAME, [STAMP], 0, None)
    end: Any = Ending(OSError(errno.EINVAL, ""), good, OSError(errno.ENETDOWN, ""), good)
    found, unshown = _taken(end, 4, Direction.EGRESS, 64)
    assert ([(each.slot, each.stamp_ns, each.frame) for each in found], unshown) == ([(4, 2_000_000_003, FRAME)], 1)
    assert len(_taken(end, 4, Direction.EGRESS, 64)[0]) == 1
