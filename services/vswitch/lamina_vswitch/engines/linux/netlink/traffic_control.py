"""Traffic control of the kernel: programs where frames enter and leave a device, and the token bucket filter.

Source: tc-bpf(8), tc-tbf(8); include/uapi/linux/pkt_sched.h, pkt_cls.h, gen_stats.h of Linux 6.18.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lamina_vswitch.engines.linux.netlink.requests import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    REPLACE,
    Netlink,
    attribute,
    attributes,
)

INGRESS, EGRESS = 0xFFFF_FFF2, 0xFFFF_FFF3
"""The two ends of a device, as parents of classifiers."""

EVERY_FRAME, TAGGED_BY_CUSTOMER, TAGGED_BY_PROVIDER = 1 << 16 | 0x0300, 2 << 16 | 0x0081, 3 << 16 | 0xA888
"""Frames that a program runs on: its place among the programs of an end, and their EtherType in network order."""

_NEW_QDISC, _DELETE_QDISC, _GET_QDISC, _NEW_FILTER, _DELETE_FILTER = 36, 37, 38, 44, 45
_MESSAGE = struct.Struct("=BxHiIII")
_KIND, _OPTIONS, _STATISTICS = 1, 2, 7
_QUEUE = 3
_CLSACT, _CLSACT_HANDLE = 0xFFFF_FFF1, 0xFFFF_0000
_ROOT, _ROOT_HANDLE = 0xFFFF_FFFF, 0x0001_0000
_ONLY = 1
_PROGRAM, _NAME, _FLAGS = 6, 7, 8
_DIRECT_ACTION = 1
_PARAMETERS, _RATE, _PEAK, _BURST, _PEAK_BURST = 1, 4, 5, 6, 7
_BUCKET = struct.Struct("=" + "BBHhHI" * 2 + "III")
_ETHERNET = 1
_MOST = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket filter: rates in bytes a second, sizes in bytes. `peak` 0: none; else above the rate.

    `queue` bytes may wait; `peak_burst` is what may leave at once at the peak rate, at least the longest frame.
    """

    rate: int
    burst: int
    queue: int
    peak: int = 0
    peak_burst: int = 0


def let_programs_run(netlink: Netlink, index: int) -> None:
    """Prepare a device for programs at both ends."""
    body = _MESSAGE.pack(0, 0, index, _CLSACT_HANDLE, _CLSACT, 0) + attribute(_KIND, "clsact")
    netlink.ask(_NEW_QDISC, body, CREATE | EXCLUSIVE)


def let_no_programs_run(netlink: Netlink, index: int) -> None:
    """Take the programs of a device away."""
    netlink.ask(_DELETE_QDISC, _MESSAGE.pack(0, 0, index, _CLSACT_HANDLE, _CLSACT, 0))


def run_program(netlink: Netlink, index: int, end: int, program: int, name: str, frames: int = EVERY_FRAME) -> None:
    """Run a loaded program, by its descriptor, on frames at an end of a device; its result is what happens.

    A program that runs on the same frames there already is replaced.
    """
    options: dict[int, bytes | int] = {_PROGRAM: program, _NAME: name.encode() + b"\0", _FLAGS: _DIRECT_ACTION}
    body = _MESSAGE.pack(0, 0, index, _ONLY, end, frames)
    netlink.ask(_NEW_FILTER, body + attribute(_KIND, "bpf") + attribute(_OPTIONS, options), CREATE)


def stop_program(netlink: Netlink, index: int, end: int, frames: int) -> None:
    """Let the program that runs on these frames at an end of a device run no more."""
    netlink.ask(_DELETE_FILTER, _MESSAGE.pack(0, 0, index, _ONLY, end, frames) + attribute(_KIND, "bpf"))


def put_bucket(netlink: Netlink, index: int, bucket: Bucket, *, change: bool) -> None:
    """Shape what leaves at a device; `change` goes on with what waits in the filter that it has."""
    rate, peak = (min(each, _MOST) for each in (bucket.rate, bucket.peak))
    each = (0, _ETHERNET, 0, 0, 0)
    parameters = _BUCKET.pack(*each, rate, *each, peak, bucket.queue, 0, 0)
    options: dict[int, bytes | int] = {_PARAMETERS: parameters, _BURST: bucket.burst}
    options[_RATE] = struct.pack("=Q", bucket.rate)
    if bucket.peak:
        options |= {_PEAK: struct.pack("=Q", bucket.peak), _PEAK_BURST: bucket.peak_burst}
    body = _MESSAGE.pack(0, 0, index, _ROOT_HANDLE, _ROOT, 0)
    body += attribute(_KIND, "tbf") + attribute(_OPTIONS, options)
    netlink.ask(_NEW_QDISC, body, REPLACE if change else CREATE | REPLACE)


def take_bucket(netlink: Netlink, index: int) -> None:
    """Shape no more; what waits is lost."""
    netlink.ask(_DELETE_QDISC, _MESSAGE.pack(0, 0, index, _ROOT_HANDLE, _ROOT, 0))


def bucket_counts(netlink: Netlink, index: int) -> tuple[int, int]:
    """Return how many frames the filter of a device has dropped, and how many wait in it; (0, 0) without one."""
    for _, content in netlink.ask(_GET_QDISC, _MESSAGE.pack(0, 0, index, 0, 0, 0), DUMP):
        about = _MESSAGE.unpack_from(content)
        found = attributes(content, _MESSAGE.size)
        if about[2] == index and found.get(_KIND) == b"tbf\0":
            waiting, _, dropped = struct.unpack_from("=III", attributes(found[_STATISTICS])[_QUEUE])
            return dropped, waiting
    return 0, 0
