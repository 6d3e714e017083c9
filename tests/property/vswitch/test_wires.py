"""Ports at descriptors of the kernel against the reference: the same frames into two engines, one with lanes and wires.

Pairs of UNIX sockets stand for the devices: what the kernel would give or take is a header and a frame in one message.
All that can be seen has to be equal after every burst, and every frame has to come out as the reference sends it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

import pytest
from tests.offload_frames import packet
from tests.property.vswitch import test_plane as plane_test

from lamina_kit.rng import Rng
from lamina_net.offload.headers import parse
from lamina_vswitch.domain.backend.vnet import COMPLETE, LAYOUT, from_kernel, to_kernel
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.domain.offload.ingress import admitted
from lamina_vswitch.engines.interface import FrameSink
from lamina_vswitch.plane.compiled import layout
from lamina_vswitch.plane.kernel_ports import TapLane, Wire
from lamina_vswitch.plane.switching import Plane

KERNEL = Takes(checksum=True, tcp4=True, tcp6=True)
KINDS = [0, 0, 1, 1, 1, 4, 4, 0x81, 0x84, 3, 5]
SEGMENTS = [0, 1, 100, 522, 523, 536, 5000]
"""Bytes of segments, of which 522 and 502 are the most that the MTU allows for TCP over IPv4 and IPv6."""


class Device:
    """A device of the kernel, which is a pair of sockets: a sink of the switch, and the lane out of it."""

    def __init__(self, *, is_socket: bool) -> None:
        self.peer, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for each in (self.peer, self.end):
            each.setblocking(False)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.lane = TapLane(self.end.fileno())
        file = self.end.fileno()  # the same one with headers and without, so that the peer hears both in their order
        self.wire = Wire(file, is_socket=is_socket, bare_file=file if is_socket else -1)

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Send frames of the reference by the wire."""
        went, left, failed = self.wire.send(frames)
        assert (left, failed) == ([], [])
        return len(went)

    def link_changed(self, up: bool) -> None:
        """Ignore the link."""

    def removed(self) -> None:
        """Ports are not removed here."""

    def heard(self) -> list[bytes]:
        """Return what the kernel was given, with headers or without."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.peer.recv(1 << 17))
        return found

    def close(self) -> None:
        """Close all ends."""
        self.peer.close()
        self.end.close()


class Side(plane_test.Side):
    """One engine; the ports of `devices` are at devices, in the reference at queues."""

    def __init__(self, vlans: list[int], limit: int, rings: set[int], devices: dict[int, Device], kernel: set[int]):
        self.devices, self.kernel = devices, kernel
        super().__init__(vlans, limit, rings - kernel)
        for slot in sorted(kernel):
            self.engine.detach(slot, self.sink(slot), 0)
            self.engine.attach(slot, self.sink(slot), 0, KERNEL)

    def sink(self, slot: int) -> FrameSink:
        """Return what is attached to a port."""
        return self.devices[slot] if slot in self.devices else super().sink(slot)


class World(plane_test.World):
    """Two engines to which the same happens; some ports of the tested one are at devices."""

    def __init__(self, rng: Rng, *, laden: bool) -> None:
        self.rng, self.now = rng, 0
        vlans = [(0, 10, 10, 20)[rng.randrange(4)] for _ in range(plane_test.PORTS)]
        kernel = {slot for slot in range(1, plane_test.PORTS + 1) if rng.randrange(4)}
        rings = {slot for slot in range(1, plane_test.PORTS + 1) if rng.randrange(2)}
        limit = 1 + rng.randrange(8) if rng.randrange(2) else 1000
        self.devices = {slot: Device(is_socket=rng.randrange(2) == 1) for slot in sorted(kernel)}
        self.reference = Side(vlans, limit, set(), {}, kernel)
        self.tested = Side(vlans, limit, rings, self.devices, kernel)
        self.plane = Plane(self.tested.engine, rng.randrange(1 << 64))
        for slot, device in self.devices.items():
            self.plane.connect(slot, device.wire)
        self.parted, self._laden = True, laden  # a frame with a tag parts a burst
        self.passed = self.bare = 0

    def burst(self) -> None:
        """Send a burst, which lies in a device of the kernel if its port is at one."""
        slot = 1 + self.rng.randrange(plane_test.PORTS)
        if slot not in self.devices:
            super().burst()
            return
        kinds = [self._given() for _ in range(1 + self.rng.randrange(12))]
        given = [kinds[self.rng.randrange(len(kinds))] for _ in range(self.rng.randrange(30))]
        frames = [from_kernel(each, each[LAYOUT.size :]) for each in given]
        good, bad = admitted(frames, plane_test.MTU)
        device = self.devices[slot]
        for each in given:
            device.peer.send(each)
        found = device.lane.next(plane_test.MTU)
        assert [to_kernel(each) + each for each in found.frames()] == [to_kernel(each) + each for each in frames]
        self.passed += int((found.places[:, 1] & layout.CARRIED != 0).sum())
        self.reference.engine.turned_away(slot, DropReason.OFFLOAD_INVALID, bad, self.now)
        dropped = self.reference.engine.transmit(slot, good, self.now)
        assert self.plane.transmit(slot, found, self.now) == dropped + len(bad)

    def compare(self) -> None:
        """Take all frames out of every port, and compare all that can be seen."""
        parted = self.parted
        assert self.tested.seen(self.now, parted=parted) == self.reference.seen(self.now, parted=parted)
        for slot in range(1, plane_test.PORTS + 1):
            sent = self.reference.drain(slot, plane_test.SLOTS)
            if slot in self.devices:
                self._compare_kernel(self.devices[slot], [to_kernel(each) + each for each in sent])
            else:
                assert self.tested.drain(slot, plane_test.SLOTS) == sent

    def _compare_kernel(self, device: Device, sent: list[bytes]) -> None:
        """Compare what a device was given, in order; a finished frame may come without its header."""
        heard = device.heard()
        assert len(heard) == len(sent)
        for found, each in zip(heard, sent, strict=True):
            is_bare = found != each
            assert not is_bare or COMPLETE + found == each
            self.bare += is_bare

    def close(self) -> None:
        """Close the devices."""
        for slot, device in self.devices.items():
            self.plane.disconnect(slot, device.wire)
            device.close()

    def _toggle(self, slot: int) -> None:
        for side in (self.reference, self.tested):
            sink = side.engine.sink_at(slot)
            if sink is not None:
                side.engine.detach(slot, sink, self.now)
            else:
                side.engine.attach(slot, side.sink(slot), self.now, KERNEL if slot in self.devices else None)

    def _given(self) -> bytes:
        """Return a frame as the kernel gives it, with its header."""
        if not self._laden or self.rng.randrange(3) == 0:
            return COMPLETE + plane_test.frame(self.rng)
        few = plane_test.STATIONS[:4]
        version, protocol = (4, 6)[self.rng.randrange(2)], (6, 6, 6, 17)[self.rng.randrange(4)]
        whole = packet(version, protocol, bytes(self.rng.randrange(1500)))
        whole = few[self.rng.randrange(4)] + few[self.rng.randrange(4)] + whole[12:]
        if self.rng.randrange(8) == 0:
            whole = whole[:12] + b"\x81\x00\x00\x00" + whole[12:]
        if self.rng.randrange(8) == 0:
            whole = whole[: self.rng.randrange(len(whole))]
        if self.rng.randrange(8) == 0:
            at = 14 + self.rng.randrange(30)
            whole = whole[:at] + bytes([self.rng.randrange(256)]) + whole[at + 1 :]
        start = (parse(whole).l4 if len(whole) > 14 else 14) + (0, 0, 0, -40, 2000)[self.rng.randrange(5)]
        kind, segment = KINDS[self.rng.randrange(len(KINDS))], SEGMENTS[self.rng.randrange(len(SEGMENTS))]
        flags, offset = (1, 1, 1, 0, 2, 3)[self.rng.randrange(6)], (16, 16, 6, 1000)[self.rng.randrange(4)]
        return LAYOUT.pack(flags, kind, self.rng.randrange(200), segment, max(start, 0), offset) + whole


@pytest.mark.parametrize("laden", [False, True])
def test_devices_of_the_kernel_get_what_the_reference_sends(laden: bool) -> None:
    """Frames, headers, drops, learning, moves and counters are the same, whatever the kernel gives."""
    passed = bare = 0
    for seed in range(30):
        world = World(Rng(f"wires/{laden}/{seed}"), laden=laden)
        for _ in range(12):
            world.now += (0, 0, 1, plane_test.NS // 2, plane_test.NS, 2 * plane_test.NS)[world.rng.randrange(6)]
            world.burst()
            world.compare()
            if not world.rng.randrange(3):
                world.change()
        passed += world.passed
        bare += world.bare
        world.close()
    assert (passed > 50) is laden and bare > 50
