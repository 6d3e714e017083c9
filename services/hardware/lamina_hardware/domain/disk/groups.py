"""I/O groups: the tree of shares and limits of disks, as io cgroups are. Pure.

On each disk, siblings that want it get its time in the ratio of their weights: a group has a *virtual time* there, what
it was given divided by its weight, and the one furthest behind goes first. Who comes back starts where its siblings
are, so nobody saves up. Transfers that lie directly in a group count together as one more child of weight 100.

A limit spaces transfers: each may begin when those before it have used up their part of the rate, as in GCRA without a
burst. Limits of all ancestors hold.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from lamina_hardware.domain.disk.counters import DiskCounters
from lamina_hardware.domain.disk.transfer import Operation, Transfer
from lamina_kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from lamina_kit.telemetry.pressure import Pressure

ROOT = ""
MAX_GROUPS = 4096
MAX_DEPTH = 32
"""Groups between a transfer and the root, itself included: choosing goes down all of them for each transfer."""
DEFAULT_WEIGHT = 100
MOST_WEIGHT = 10_000
_SCALE = 10_000
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class IoLimit:
    """Limits on one disk (`disk` empty: on each); 0 means none. Bytes and transfers in a second."""

    disk: str = ""
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(slots=True)
class _Share:
    """A competitor for one disk: a group, or the transfers directly in one."""

    virtual: int = 0
    waiting: int = 0


@dataclass(slots=True)
class _OnDisk:
    """What a group has on one disk. `free_ns` says for each limit (as `_kinds` orders them) when it lets one begin."""

    share: _Share = field(default_factory=_Share)
    own: _Share = field(default_factory=_Share)
    floor: int = 0
    reads: deque[Transfer] = field(default_factory=deque)
    others: deque[Transfer] = field(default_factory=deque)
    counters: DiskCounters = field(default_factory=DiskCounters)
    throttled_ns: int = 0
    free_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def queue(self, transfer: Transfer) -> deque[Transfer]:
        """Returns where a transfer waits: a limit on reads holds up no write."""
        return self.reads if transfer.operation == Operation.READ else self.others


class IoGroup:
    """A node of the tree."""

    def __init__(self, name: str, parent: IoGroup | None, weight: int, limits: tuple[IoLimit, ...], owner: str) -> None:
        self.name, self.parent, self.weight, self.limits, self.owner = name, parent, weight, limits, owner
        self.children: dict[str, IoGroup] = {}
        self.disks: dict[str, _OnDisk] = {}
        self.pressure = Pressure()
        self.waiting = 0
        self.going = 0

    def on(self, disk: str) -> _OnDisk:
        """Returns what the group has on a disk."""
        found = self.disks.get(disk)
        if found is None:
            found = self.disks[disk] = _OnDisk()
        return found

    def limit(self, disk: str) -> IoLimit | None:
        """Returns the limit that holds on a disk: its own, else the one for each disk."""
        by_disk = {limit.disk: limit for limit in self.limits}
        return by_disk.get(disk) or by_disk.get("")

    def line(self) -> list[IoGroup]:
        """Returns the group and all above it, the root last."""
        line, at = [], self
        while True:
            line.append(at)
            if at.parent is None:
                return line
            at = at.parent


class IoGroups:
    """All groups of a host; the root has the empty name."""

    def __init__(self) -> None:
        self._root = IoGroup(ROOT, None, DEFAULT_WEIGHT, (), "")
        self._groups: dict[str, IoGroup] = {ROOT: self._root}
        self._asked = 0

    def get(self, name: str) -> IoGroup:
        """Returns a group. Raises `NotFound` `IO_GROUP_UNKNOWN`."""
        found = self._groups.get(name)
        if found is None:
            raise NotFound(
                f"I/O group {name!r} does not exist.",
                reason="IO_GROUP_UNKNOWN",
                next_step="List them with `Disks.ListIoGroups`.",
            )
        return found

    def find(self, name: str) -> IoGroup | None:
        """Returns a group, or None."""
        return self._groups.get(name)

    def entries(self) -> list[IoGroup]:
        """Returns all groups but the root, in the order of their names."""
        return [self._groups[name] for name in sorted(self._groups) if name]

    def create(self, name: str, parent: str, weight: int, limits: tuple[IoLimit, ...], owner: str) -> IoGroup:
        """Makes a group.

        Raises `AlreadyExists` `IO_GROUP_EXISTS`, `NotFound` `IO_GROUP_UNKNOWN` for the parent, `ResourceExhausted`
        `TOO_MANY_IO_GROUPS` for more than 4096, or below more than 32.
        """
        above = self.get(parent)
        if name in self._groups:
            raise AlreadyExists(
                f"I/O group {name!r} exists.", reason="IO_GROUP_EXISTS", next_step="Take it, or choose another name."
            )
        if len(self._groups) > MAX_GROUPS or len(above.line()) > MAX_DEPTH:
            raise ResourceExhausted(
                f"I/O group {name!r} would be one of more than {MAX_GROUPS}, or below more than {MAX_DEPTH} others.",
                reason="TOO_MANY_IO_GROUPS",
                next_step="Delete groups that are not needed, or make it nearer to the root.",
            )
        made = IoGroup(name, above, weight or DEFAULT_WEIGHT, limits, owner)
        self._groups[name] = above.children[name] = made
        return made

    def change_limits(self, group: IoGroup, limits: tuple[IoLimit, ...], now_ns: int) -> None:
        """Gives a group other limits. What it took too much under the old ones it owes at the new rates."""
        old = {disk: group.limit(disk) or IoLimit() for disk in group.disks}
        group.limits = limits
        for disk, on in group.disks.items():
            rates = zip(_rates(old[disk]), _rates(group.limit(disk) or IoLimit()), strict=True)
            for kind, (before, after) in enumerate(rates):
                if before != after:
                    owed = max(0, on.free_ns[kind] - now_ns) * before
                    on.free_ns[kind] = now_ns + -(-owed // after) if after else 0

    def delete(self, name: str) -> None:
        """Deletes an empty group. Raises `FailedPrecondition` `IO_GROUP_IN_USE` or `IO_GROUP_IS_ROOT`."""
        found = self.get(name)
        if found.parent is None:
            raise root_stays()
        if found.children or found.waiting or found.going:
            raise FailedPrecondition(
                f"I/O group {name!r} has {len(found.children)} groups and {found.waiting + found.going} transfers.",
                reason="IO_GROUP_IN_USE",
                next_step="Delete the groups below it and let its transfers end first.",
            )
        del self._groups[name], found.parent.children[name]

    # ── waiting and choosing ─────────────────────────────────────────────────────────────────────────────────────

    def queue(self, transfer: Transfer, disk: str, now_ns: int) -> None:
        """Has a transfer wait in its group for a disk."""
        group = self.get(transfer.group)
        self._asked += 1
        transfer.number = self._asked
        group.on(disk).queue(transfer).append(transfer)
        _wake(group.on(disk).own, group.on(disk))
        for node in group.line():
            on = node.on(disk)
            on.counters.came()
            node.waiting += 1
            node.pressure.note(now_ns, node.waiting, node.going)
            if node.parent is not None:
                _wake(on.share, node.parent.on(disk))

    def choose(self, disk: str, now_ns: int) -> tuple[Transfer | None, int | None]:
        """Returns the transfer that may begin next, or None and when a limit lets one (None: nothing waits)."""
        return self._choose(self._root, disk, now_ns)

    def begin(self, transfer: Transfer, disk: str, cost_ns: int, now_ns: int) -> None:
        """Takes a chosen transfer out of its queue and charges its group; `cost_ns` is the disk's time for it."""
        group = self.get(transfer.group)
        on = group.on(disk)
        queue = on.queue(transfer)
        taken = queue.popleft()
        assert taken is transfer
        if transfer.limited_ns is not None and queue:
            queue[0].limited_ns = max(queue[0].asked_ns, transfer.limited_ns)
        transfer.begun_ns = now_ns
        on.own.waiting -= 1
        on.floor = max(on.floor, on.own.virtual)
        on.own.virtual += cost_ns * _SCALE // DEFAULT_WEIGHT
        for node in group.line():
            here = node.on(disk)
            here.counters.began(now_ns)
            if transfer.limited_ns is not None:
                here.throttled_ns += now_ns - transfer.limited_ns
            _charge_limit(here, node.limit(disk), transfer, now_ns)
            node.waiting -= 1
            node.going += 1
            node.pressure.note(now_ns, node.waiting, node.going)
            if node.parent is not None:
                here.share.waiting -= 1
                above = node.parent.on(disk)
                above.floor = max(above.floor, here.share.virtual)
                here.share.virtual += cost_ns * _SCALE // node.weight

    def end(self, transfer: Transfer, disk: str, now_ns: int) -> None:
        """Notes the end of a transfer that had begun."""
        for node in self.get(transfer.group).line():
            node.on(disk).counters.ended(transfer, now_ns, began=True)
            node.going -= 1
            node.pressure.note(now_ns, node.waiting, node.going)

    def drop(self, disk: str, now_ns: int) -> list[Transfer]:
        """Takes out all that waits for a disk, by group name and order; they end with the result that they carry."""
        dropped = []
        for name in sorted(self._groups):
            group = self._groups[name]
            on = group.disks.get(disk)
            while on is not None and (queue := on.reads or on.others):
                transfer = queue.popleft()
                transfer.begun_ns = now_ns
                on.own.waiting -= 1
                for node in group.line():
                    if node.parent is not None:
                        node.on(disk).share.waiting -= 1
                    node.waiting -= 1
                    node.pressure.note(now_ns, node.waiting, node.going)
                dropped.append(transfer)
        return dropped

    def count_dropped(self, transfer: Transfer, disk: str, now_ns: int) -> None:
        """Counts a dropped transfer, once its result is known."""
        for node in self.get(transfer.group).line():
            node.on(disk).counters.ended(transfer, now_ns, began=False)

    def forget(self, disk: str) -> None:
        """Forgets what groups had on a disk that is gone."""
        for group in self._groups.values():
            group.disks.pop(disk, None)

    def _choose(self, node: IoGroup, disk: str, now_ns: int) -> tuple[Transfer | None, int | None]:
        """Looks at the competitors below a node, the one furthest behind first, until one may begin."""
        on = node.on(disk)
        rivals: list[tuple[int, str, IoGroup | None]] = []
        if on.own.waiting:
            rivals.append((on.own.virtual, "", None))
        rivals += [
            (child.on(disk).share.virtual, name, child)
            for name, child in node.children.items()
            if disk in child.disks and child.on(disk).share.waiting
        ]
        soonest: int | None = None
        for _, _, child in sorted(rivals, key=lambda rival: rival[:2]):
            found, when = self._head(node, disk, now_ns) if child is None else self._choose(child, disk, now_ns)
            if found is not None:
                return found, None
            if when is not None and (soonest is None or when < soonest):
                soonest = when
        return None, soonest

    def _head(self, group: IoGroup, disk: str, now_ns: int) -> tuple[Transfer | None, int | None]:
        """Returns the older of the two queues' first transfers that the limits above let begin, else when they do."""
        on = group.on(disk)
        heads = sorted((queue[0] for queue in (on.reads, on.others) if queue), key=lambda head: head.number)
        soonest: int | None = None
        for head in heads:
            when = self._limited_until(group, head, disk, now_ns)
            if when is None:
                return head, None
            soonest = when if soonest is None else min(soonest, when)
        return None, soonest

    def _limited_until(self, group: IoGroup, transfer: Transfer, disk: str, now_ns: int) -> int | None:
        """Returns when the limits of a group and all above it let a transfer begin; None: now."""
        if transfer.operation == Operation.FLUSH:
            return None
        free = [
            node.on(disk).free_ns[kind]
            for node in group.line()
            if node.limit(disk) is not None
            for kind in _kinds(transfer)
        ]
        when = max(free, default=now_ns)
        if when <= now_ns:
            return None
        if transfer.limited_ns is None:
            transfer.limited_ns = now_ns
        return when


def root_stays() -> FailedPrecondition:
    """Returns the error for changing the root."""
    return FailedPrecondition(
        "The root of the I/O groups has no settings.", reason="IO_GROUP_IS_ROOT", next_step="Name a group below it."
    )


def _wake(share: _Share, among: _OnDisk) -> None:
    """Counts one more that waits; a competitor that had nothing starts where the others are."""
    if not share.waiting:
        share.virtual = max(share.virtual, among.floor)
    share.waiting += 1


def _kinds(transfer: Transfer) -> tuple[int, int]:
    """Returns which limits hold for a transfer: bytes read, reads, bytes written, writes are 0 to 3."""
    return (2, 3) if transfer.writes else (0, 1)


def _rates(limit: IoLimit) -> tuple[int, int, int, int]:
    """Returns the rates of a limit in the order of `_kinds`."""
    return limit.read_bytes, limit.reads, limit.write_bytes, limit.writes


def _charge_limit(on: _OnDisk, limit: IoLimit | None, transfer: Transfer, now_ns: int) -> None:
    if limit is None or transfer.operation == Operation.FLUSH:
        return
    rates = _rates(limit)
    for kind, amount in zip(_kinds(transfer), (transfer.moved_bytes, 1), strict=True):
        if rates[kind]:
            on.free_ns[kind] = max(on.free_ns[kind], now_ns) - (-amount * _NS // rates[kind])
        else:
            on.free_ns[kind] = 0
