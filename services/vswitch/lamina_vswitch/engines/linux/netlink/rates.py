"""Shaping by the kernel's token bucket filter.

Frames wait in the kernel until their bits may travel, as the policy says. What differs from the model: the queue is
bounded in bytes, so that small frames find more room than 1024; at a peak rate, up to one longest frame leaves at
once; the times are the kernel's.
"""

from __future__ import annotations

from lamina_vswitch.domain.frames.header import HEADER_BYTES, TAG_BYTES
from lamina_vswitch.domain.policy.settings import Shaping
from lamina_vswitch.domain.policy.shaper import QUEUE_FRAMES
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.netlink.traffic_control import Bucket, bucket_counts, put_bucket, take_bucket


def bucket_of(shaping: Shaping, mtu_bytes: int) -> Bucket:
    """Return the kernel's bucket for a policy.

    The kernel wants a peak above the average. Where they are equal, the bucket is one longest frame instead: then
    nothing gathers that could leave faster.
    """
    frame = mtu_bytes + HEADER_BYTES + TAG_BYTES
    rate, queue = shaping.average // 8, QUEUE_FRAMES * frame
    if shaping.peak > shaping.average:
        return Bucket(rate, shaping.bucket_bytes, queue, shaping.peak // 8, frame)
    return Bucket(rate, frame if shaping.peak else min(shaping.bucket_bytes, (1 << 32) - 1), queue)


class Rates:
    """Devices at whose way out frames are shaped, by the slots of the ports that they serve."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._set: dict[int, tuple[int, Bucket]] = {}
        self._lost: dict[int, int] = {}

    def set(self, slot: int, index: int, shaping: Shaping | None, mtu_bytes: int) -> None:
        """Shape what leaves at the device with an index, or no more; then what waits is lost and counted."""
        bucket = None if shaping is None else bucket_of(shaping, mtu_bytes)
        old = self._set.get(slot)
        if old is not None and (bucket is None or old[0] != index):
            del self._set[slot]
            self._lost[slot] = self._lost.get(slot, 0) + sum(bucket_counts(self._netlink, old[0]))
            take_bucket(self._netlink, old[0])
            old = None
        if bucket is not None and old != (index, bucket):
            put_bucket(self._netlink, index, bucket, change=old is not None)
            self._set[slot] = (index, bucket)

    def lose(self, slot: int) -> None:
        """Note that the device of a port went away, with what waited there."""
        self._set.pop(slot, None)

    def forget(self, slot: int) -> None:
        """Forget a port that is gone with its device."""
        self._set.pop(slot, None)
        self._lost.pop(slot, None)

    def drops(self, slot: int) -> int:
        """Return how many frames found no room, or were lost when shaping ended."""
        held = self._set.get(slot)
        return self._lost.get(slot, 0) + (bucket_counts(self._netlink, held[0])[0] if held is not None else 0)
