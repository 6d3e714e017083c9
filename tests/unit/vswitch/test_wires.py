"""A wire to a device that has no room: frames wait, none passes another, and what is too much is counted."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

from lamina_vswitch.domain.backend.vnet import LAYOUT, to_kernel
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.transmit_queue import TransmitQueue
from lamina_vswitch.plane.kernel_ports import TapLane, Wire
from lamina_vswitch.plane.switching import Plane

A, B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
WAIT = 100


class Sink:
    """A port at one end of a pair of sockets, of which the other is the kernel's."""

    def __init__(self, engine: ModelEngine, slot: int) -> None:
        self.peer, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for each in (self.peer, self.end):
            each.setblocking(False)
        file, port = self.end.fileno(), PortEnd(engine, slot, lambda: 1500, lambda: 0)
        self.queue = TransmitQueue(file, WAIT, lambda frame: os.writev(file, (to_kernel(frame), frame)), port.lost)
        self.lane, self.wire = TapLane(file), Wire(file, is_socket=True)
        self.queue.use(self.wire)

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Send frames or have them wait."""
        return self.queue.put_all(frames)

    def link_changed(self, up: bool) -> None:
        """Ignore the link."""

    def removed(self) -> None:
        """Ports are not removed here."""

    def close(self) -> None:
        """Close both ends."""
        self.queue.withdraw()
        self.peer.close()
        self.end.close()


def number(count: int) -> bytes:
    """Return a frame from A to B."""
    return B + A + b"\x88\xb5" + count.to_bytes(4, "big")


async def test_what_does_not_fit_waits_and_keeps_its_order() -> None:
    """A peer that does not read gets the first frames, then those that waited, in order; the rest is counted."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch("s", SwitchDefinition("s"))
    plane, sinks = Plane(engine, 1), []
    for slot in (1, 2):
        engine.add_port("s", slot, f"p{slot}", 0, True)
        sinks.append(Sink(engine, slot))
        engine.attach(slot, sinks[-1], 0)
        plane.connect(slot, sinks[-1].wire)
    first, second = sinks
    engine.transmit(2, [A + B + b"\x88\xb5"], 0)
    engine.transmit(1, [B + A + b"\x88\xb5"], 0)
    first.peer.recv(100)
    second.peer.recv(100)
    sent = 0
    for _ in range(30):
        try:
            while True:
                first.peer.send(bytes(LAYOUT.size) + number(sent))
                sent += 1
        except BlockingIOError:
            plane.transmit(1, first.lane.next(1500), 0)
    plane.transmit(1, first.lane.next(1500), 0)
    assert sent > 2 * WAIT
    heard: list[int] = []
    async with asyncio.timeout(20):
        while not heard or second.queue.waits:
            try:
                heard.append(int.from_bytes(second.peer.recv(100)[-4:], "big"))
            except BlockingIOError:
                await asyncio.sleep(0)  # lets those that wait go
    while True:
        try:
            heard.append(int.from_bytes(second.peer.recv(100)[-4:], "big"))
        except BlockingIOError:
            break
    counters = engine.counters(2)
    assert heard == list(range(len(heard))) and len(heard) > WAIT
    assert counters.drops == {DropReason.QUEUE_FULL: sent - len(heard)}
    assert (counters.sent_frames, counters.received_frames) == (len(heard) + 1, 1)
    for sink in sinks:
        sink.close()


async def test_a_frame_that_cannot_go_is_counted_and_others_go() -> None:
    """What the device refuses for itself is lost alone, by the plane as by Python."""
    engine = ModelEngine(lambda notice: None)
    engine.add_switch("s", SwitchDefinition("s", mtu_bytes=9000))
    plane, sinks = Plane(engine, 1), []
    for slot in (1, 2):
        engine.add_port("s", slot, f"p{slot}", 0, True)
        sinks.append(Sink(engine, slot))
        engine.attach(slot, sinks[-1], 0)
        plane.connect(slot, sinks[-1].wire)
    first, second = sinks
    first.peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    engine.transmit(2, [A + B + b"\x88\xb5"], 0)
    engine.transmit(1, [B + A + b"\x88\xb5"], 0)
    second.peer.recv(100)
    long = number(1) + bytes(8000)  # longer than the sending buffer of the device
    for each in (number(0), long, number(2)):
        first.peer.send(bytes(LAYOUT.size) + each)
    plane.transmit(1, first.lane.next(9000), 0)
    assert [second.peer.recv(10_000)[LAYOUT.size :] for _ in range(2)] == [number(0), number(2)]
    engine.transmit(1, [number(3), long, number(4)], 0)
    assert [second.peer.recv(10_000)[LAYOUT.size :] for _ in range(2)] == [number(3), number(4)]
    counters = engine.counters(2)
    assert counters.drops == {DropReason.QUEUE_FULL: 2} and counters.sent_frames == 5
    for sink in sinks:
        sink.close()
