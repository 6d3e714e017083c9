"""The bypass: known frames between packet backends of one switch are handed on by the kernel and never come here.

What the kernel decides by is written here, from the switch's own MAC table, and only for stations behind plain ports
whose frames nobody else has a say in. Whatever changes that (`left` is called before it does) empties it at once;
it fills again from frames that come the ordinary way. What the kernel counted, when stations sent last and a frame for
the records now and then are taken over (`settle`) before anybody looks, and once a second.

Why it is so: docs/adr/0052-known-frames-bypass-the-process.md.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.domain.frames.header import HEADER_BYTES
from lamina_vswitch.domain.switch.forwarding import Move
from lamina_vswitch.domain.switch.topology import Port, Switch
from lamina_vswitch.ebpf import bypass as code
from lamina_vswitch.ebpf.assembler import assemble
from lamina_vswitch.ebpf.programs import SharedMemory, attach_alone, load_first_classifier, load_socket_filter
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.backends.bypass_member import COUNTED, Member
from lamina_vswitch.io.backends.device_state import DeviceState

_TICK_S, _TICK_NS = 1.0, 1_000_000_000
_LEAST_AGEING_NS = 4 * _TICK_NS
"""Half of it is at least two ticks, so that what was taken over last is never older than a life."""
_PLACE = code.STATION_BYTES


@dataclass(slots=True)
class _Filled:
    """What the kernel decides by for one switch: where each station is, by VLAN and address, as of a revision."""

    revision: int
    stations: dict[tuple[int, bytes], int] = field(default_factory=dict)


class Bypass:
    """The bypass of all switches of an engine. One writer, as the engine is."""

    def __init__(self, engine: ModelEngine) -> None:
        """Make the memory. Raises FailedPrecondition `BPF_REFUSED`."""
        if "PREEMPT_RT" in os.uname().version:  # frames of one processor come between each other there
            raise FailedPrecondition(
                "The kernel hands no frames on where it can be interrupted while it does.",
                reason="BPF_REFUSED",
                next_step="Nothing has to be done: frames pass through the service.",
            )
        self._engine = engine
        self._memory = SharedMemory(code.MEMORY_BYTES)
        self._words = self._memory.words
        self._members: dict[int, Member] = {}
        self._filled: dict[str, _Filled] = {}
        self._free = list(range(code.MOST_PORTS - 1, 0, -1))
        self._domains = 0
        self._settled_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        engine.elsewhere = self

    def close(self) -> None:
        """Give the memory back, when all ports have left."""
        self._stop_timer()
        self._memory.close()

    def join(self, slot: int, index: int, now_ns: Callable[[], int]) -> Member:
        """Let a port take part, whose device has an index in this thread's network namespace.

        Raises FailedPrecondition `BPF_REFUSED`, Unavailable `KERNEL_REFUSED`.
        """
        if not self._free:
            raise FailedPrecondition(
                f"The kernel hands frames on between {code.MOST_PORTS - 1} ports at most.",
                reason="BPF_REFUSED",
                next_step="Nothing has to be done: frames of this port pass through the service.",
            )
        number = self._free[-1]
        space = Path("/proc/thread-self/ns/net").stat().st_ino
        device = DeviceState(index)
        held: list[int] = []
        try:
            held.append(load_socket_filter(assemble(code.packet_filter(self._memory.descriptor, number))))
            program = load_first_classifier(assemble(code.redirector(self._memory.descriptor, number)))
            held.append(program)
            held.append(attach_alone(program, index))
        except BaseException:
            device.close()
            for each in held:
                os.close(each)
            raise
        os.close(program)
        self._free.pop()
        base = self._port_at(number)
        self._words[base : base + code.PORT_BYTES // 8] = memoryview(bytes(code.PORT_BYTES)).cast("Q")
        self._words[base + (code.DEVICE >> 3)] = index
        for processor in range(code.MOST_PROCESSORS):  # a note of an earlier port with this number
            note = (code.NOTES_AT + processor * code.NOTE_BYTES) >> 3
            if self._words[note] >> 32 == number:
                self._words[note] = 0
        offset_ns = now_ns() - time.monotonic_ns()  # never too late: no station was heard in the future
        switch = self._engine.switch_at(slot)
        member = Member(switch, number, offset_ns, space, device, held[0], held[2])
        member.counted = self._counts(number)
        self._members[slot] = member
        self.left(switch)
        return member

    def leave(self, slot: int, member: Member) -> None:
        """Let a port take part no more; its socket is closed next. Idempotent."""
        if self._members.get(slot) is not member:
            return
        self.left(member.switch)
        del self._members[slot]
        member.device.close()
        os.close(member.hold)
        os.close(member.filter)
        self._free.append(member.number)

    def settle(self, switch: Switch) -> None:
        """Take over what the kernel did with frames of a switch until now."""
        members = self._of(switch)
        for slot in members:  # also when nothing passes now: a processor may have counted after it was looked last
            if slot in switch.ports:
                self._take_counts(switch.ports[slot], self._members[slot])
        filled = self._filled.get(switch.name)
        if filled is None:
            return
        self._take_times(switch, filled)
        for slot in members:
            if slot in switch.ports:
                self._take_sample(switch.ports[slot], self._members[slot])

    def left(self, switch: Switch) -> None:
        """Have all frames of a switch come here from now on: something about it changes."""
        filled = self._filled.get(switch.name)
        if filled is None:
            return
        for slot in self._of(switch):
            self.set_word(self._members[slot], code.DOMAIN, 0)
            self.set_word(self._members[slot], code.DRAINS, 0)
        self.settle(switch)
        del self._filled[switch.name]
        for place in filled.stations.values():
            self._words[place] = 0
        if not self._filled:
            self._stop_timer()

    def moved(self, switch: Switch, moves: Sequence[Move]) -> None:
        """Forget where stations were that were heard at another port, which may not take part."""
        filled = self._filled.get(switch.name)
        if filled is None:
            return
        for move in moves:
            place = filled.stations.get((move.vlan, move.mac))
            if place is not None and self._words[place] & 0xFFFF != self._number(move.new_port):
                self._forget(filled, (move.vlan, move.mac))

    def learn(self, slot: int, heads: Iterable[bytes], now_ns: int) -> None:
        """Let frames as these, which a port has just sent, pass from now on, if nothing about them is news."""
        switch = self._engine.switch_at(slot)
        filled = self._filled.get(switch.name)
        if filled is None or filled.revision != switch.revision:
            filled = self._fill(switch)
        domain = self._words[self._port_at(self._members[slot].number)]
        if filled is None or not domain:
            return
        vlan = switch.ports[slot].vlan
        for head in heads:
            if len(head) < HEADER_BYTES or head[0] & 1:
                continue
            source = switch.fdb.lookup(vlan, head[6:12], now_ns)
            target = switch.fdb.lookup(vlan, head[:6], now_ns)
            if source is None or target is None or source.static or target.static or source.port != slot:
                continue
            there = self._members.get(target.port)
            if target.port == slot or there is None or self._words[self._port_at(there.number)] != domain:
                continue
            self._put(filled, domain, vlan, head[:6], target.port, target.seen_ns)
            self._put(filled, domain, vlan, head[6:12], slot, source.seen_ns)

    def catch_up(self) -> None:
        """Take over what the kernel did if that was not done for some time: frames are about to be switched."""
        if self._filled and time.monotonic_ns() - self._settled_ns > _TICK_NS:
            self._settle_all()

    def look(self, member: Member) -> None:
        """Hear what the kernel tells of devices."""
        if member.device.changed():
            self.left(member.switch)

    def set_waits(self, member: Member, waits: bool) -> None:
        """Note whether frames wait at the way out of a port, which none may pass."""
        if member.waits != waits:
            member.waits = waits
            self.left(member.switch)

    def word(self, member: Member, place: int) -> int:
        """Return a word of a port."""
        return self._words[self._port_at(member.number) + (place >> 3)]

    def set_word(self, member: Member, place: int, value: int) -> None:
        """Set a word of a port."""
        self._words[self._port_at(member.number) + (place >> 3)] = value

    def take_lost(self, member: Member) -> int:
        """Return how many frames were lost while the ring was emptied, since the last time."""
        now = self._counts(member.number)[-1]
        lost, member.counted[-1] = now - member.counted[-1], now
        return lost

    def _of(self, switch: Switch) -> list[int]:
        """Return the slots of the ports of a switch that take part, in order."""
        return [slot for slot in sorted(self._members) if self._members[slot].switch is switch]

    def _fill(self, switch: Switch) -> _Filled | None:
        """Begin to let frames of a switch pass; None when there are no two ports for it."""
        self.left(switch)
        groups: dict[tuple[int, int], list[int]] = {}
        for slot in self._of(switch):
            port = switch.ports.get(slot)
            if port is not None and self._eligible(switch, port):
                groups.setdefault((port.vlan, self._members[slot].space), []).append(slot)
        groups = {key: slots for key, slots in groups.items() if len(slots) > 1}
        filled = self._filled[switch.name] = _Filled(switch.revision)
        for slots in groups.values():
            self._domains = self._domains % 0xFFFF_FFFF + 1
            mtu_bytes = min([switch.mtu_bytes, *(self._members[slot].device.mtu_bytes for slot in slots)])
            for slot in slots:
                member, port = self._members[slot], switch.ports[slot]
                self.set_word(member, code.LONGEST, mtu_bytes + HEADER_BYTES)
                self.set_word(member, code.HALF_LIFE, switch.fdb.ageing_ns // 2)
                self.set_word(member, code.SAMPLE_BYTES, 0)
                self.set_word(member, code.SAMPLE_DUE, max(port.record_due_ns - member.offset_ns, 0))
            for slot in slots:
                self.set_word(self._members[slot], code.DOMAIN, self._domains)
        if groups and self._timer is None:
            self._settled_ns = time.monotonic_ns()
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        return filled if groups else None

    def _eligible(self, switch: Switch, port: Port) -> bool:
        """Tell whether nothing but the MAC table has a say in frames that enter or leave at a port."""
        engine, member = self._engine, self._members[port.slot]
        alone = engine.observer is None and switch.decider is None and not switch.leads_out(port.vlan)
        plain = switch.simple(port) and port.takes_part and not port.held and engine.direct(port.slot)
        return alone and plain and not member.waits and member.device.free and switch.fdb.ageing_ns >= _LEAST_AGEING_NS

    def _put(self, filled: _Filled, domain: int, vlan: int, mac: bytes, slot: int, seen_ns: int) -> None:
        """Write a station down, unless four others have its places; what is known of it stays."""
        member = self._members[slot]
        seen = max(seen_ns - member.offset_ns, 0)
        number = int.from_bytes(mac, "little")
        word = number << 16 | member.number
        key = vlan, mac
        place = filled.stations.get(key)
        if place is not None and self._words[place] == word:
            if self._words[place + (code.SEEN >> 3)] < seen:
                self._words[place + (code.SEEN >> 3)] = seen
            return
        if place is not None:  # it moved
            self._forget(filled, key)
        first = (code.STATIONS_AT >> 3) + code.bucket_of(number, domain) * code.BUCKET_PLACES * (_PLACE >> 3)
        for place in range(first, first + code.BUCKET_PLACES * (_PLACE >> 3), _PLACE >> 3):
            if not self._words[place]:
                self._words[place + (code.SEEN >> 3)] = seen
                self._words[place + (code.GATE >> 3)] = self.word(member, code.HANDED)
                self._words[place] = word
                filled.stations[key] = place
                return

    def _forget(self, filled: _Filled, key: tuple[int, bytes]) -> None:
        """Forget a station. The kernel may have done so, and its place have been given to another one since."""
        place = filled.stations.pop(key)
        if self._words[place] >> 16 == int.from_bytes(key[1], "little"):
            self._words[place] = 0

    def _number(self, slot: int) -> int:
        """Return the number of a port in the programs; 0: it takes no part."""
        return self._members[slot].number if slot in self._members else 0

    def _take_counts(self, port: Port, member: Member) -> None:
        now = self._counts(member.number)
        received, received_bytes, sent, sent_bytes, _ = (a - b for a, b in zip(now, member.counted, strict=True))
        member.counted[:-1] = now[:-1]
        if received or sent:
            port.counters.received_frames += received
            port.counters.received_bytes += received_bytes
            port.counters.sent_frames += sent
            port.counters.sent_bytes += sent_bytes

    def _counts(self, number: int) -> list[int]:
        """Return what all processors counted at a port."""
        first, row = (code.COUNTS_AT + number * code.ROW_BYTES) >> 3, (code.MOST_PORTS * code.ROW_BYTES) >> 3
        return [sum(self._words[first + (place >> 3) : code.MEMORY_BYTES >> 3 : row]) for place in COUNTED]

    def _take_times(self, switch: Switch, filled: _Filled) -> None:
        """Tell the MAC table when stations sent last; forget those that the kernel saw elsewhere."""
        slots = {self._members[slot].number: slot for slot in self._of(switch)}
        horizon = time.monotonic_ns() - switch.fdb.ageing_ns
        for (vlan, mac), place in list(filled.stations.items()):
            word, seen = self._words[place], self._words[place + (code.SEEN >> 3)]
            slot = slots.get(word & 0xFFFF) if word >> 16 == int.from_bytes(mac, "little") else None
            if slot is None or seen <= horizon:
                self._forget(filled, (vlan, mac))
                continue
            seen_ns = seen + self._members[slot].offset_ns
            entry = switch.fdb.lookup(vlan, mac, seen_ns)
            if entry is not None and not entry.static and entry.port == slot and entry.seen_ns < seen_ns:
                switch.fdb.learn(vlan, mac, slot, seen_ns)

    def _take_sample(self, port: Port, member: Member) -> None:
        """Have the frame recorded that was kept, and say when the next one shall be."""
        size = self.word(member, code.SAMPLE_BYTES)
        if not size:
            return
        at = code.PORTS_AT + member.number * code.PORT_BYTES + code.SAMPLE
        head = self._memory.bytes_at(at, min(size, code.HEAD_BYTES))
        taken_ns = self.word(member, code.SAMPLE_TIME) + member.offset_ns
        self.set_word(member, code.SAMPLE_BYTES, 0)
        if taken_ns >= port.record_due_ns:
            self._engine.record(port.slot, (head + bytes(size - len(head)),), taken_ns)
        self.set_word(member, code.SAMPLE_DUE, max(port.record_due_ns - member.offset_ns, 0))

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)
        self._settle_all()

    def _settle_all(self) -> None:
        self._settled_ns = time.monotonic_ns()
        for slot in sorted(self._members):
            switch = self._members[slot].switch
            if self._of(switch)[0] == slot:
                self.settle(switch)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @staticmethod
    def _port_at(number: int) -> int:
        """Return the first word of a port."""
        return (code.PORTS_AT + number * code.PORT_BYTES) >> 3
