"""A NIC with memory, time and a wire made of lists, and frames to send."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_hardware.domain.devices.dma import DmaOutcome, DmaRefused, PageNeeded
from lamina_hardware.domain.nic import descriptors
from lamina_hardware.domain.nic.descriptors import TransmitContext, TransmitData
from lamina_hardware.domain.nic.moderation import Moderation
from lamina_hardware.domain.nic.nic import Nic
from lamina_hardware.domain.nic.ring import Ring
from lamina_net.offload.headers import TCP, UDP, fill_ipv4_sum, fill_transport_sum, parse

MAC, PEER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
RING, BUFFERS = 0x10000, 0x100000


class World:
    """The ports of one NIC; `memory` reaches from 0 to its size, everything else is refused."""

    def __init__(self, size: int = 4 << 20) -> None:
        self.memory = bytearray(size)
        self.now = 0
        self.timers: list[tuple[int, int, Callable[[], None]]] = []
        self.interrupts: list[tuple[int, int]] = []
        self.sent: list[bytes] = []
        self.heads: dict[int, int] = {}
        self.tails: dict[int, int] = {}
        self.missing: set[int] = set()
        self.asked: list[tuple[int, Callable[[], None]]] = []
        self.stops: list[tuple[int, str]] = []
        self._count = 0

    def read(self, iova: int, size: int, queue: int) -> bytes:
        """Reads memory."""
        self._check(iova, size, False)
        return bytes(self.memory[iova : iova + size])

    def write(self, iova: int, data: bytes, queue: int) -> None:
        """Writes memory."""
        self._check(iova, len(data), True)
        self.memory[iova : iova + len(data)] = data

    def check(self, iova: int, size: int, queue: int) -> None:
        """Does as `write` does, but for the writing."""
        self._check(iova, size, True)

    def _check(self, iova: int, size: int, write: bool) -> None:
        if iova // 4096 in self.missing:
            raise PageNeeded(iova, write, lambda then: self.asked.append((iova // 4096, then)))
        if iova + size > len(self.memory):
            raise DmaRefused(iova, write, DmaOutcome.NOT_PRESENT)

    def bring(self) -> None:
        """Brings the pages in that were asked for, and lets what waits for them go on."""
        asked, self.asked = self.asked, []
        for page, then in asked:
            self.missing.discard(page)
            then()

    def tail(self, queue: int) -> int:
        """Returns the driver's index."""
        return self.tails.get(queue, 0)

    def sleep(self, queue: int) -> bool:
        """Says that the NIC sleeps: the driver of these tests always rings."""
        return True

    def interrupt(self, vector: int, queue: int) -> None:
        """Notes an interrupt with its time."""
        self.interrupts.append((self.now, vector))

    def publish(self, queue: int, head: int) -> None:
        """Notes a head."""
        self.heads[queue] = head

    def send(self, frames: Sequence[bytes]) -> None:
        """Notes what leaves."""
        self.sent.extend(frames)

    def now_ns(self) -> int:
        """Returns the time."""
        return self.now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> None:
        """Notes a timer."""
        self._count += 1
        self.timers.append((max(when_ns, self.now), self._count, callback))

    def stopped(self, queue: int, reason: str) -> None:
        """Notes a stop."""
        self.stops.append((queue, reason))

    def run_until(self, when: int) -> None:
        """Lets time pass; timers fire in their order."""
        while self.timers and min(self.timers)[:2] <= (when, self._count):
            first = min(self.timers, key=lambda timer: timer[:2])
            if first[0] > when:
                break
            self.timers.remove(first)
            self.now = first[0]
            first[2]()
        self.now = when


def make(world: World, *rings: Ring) -> Nic:
    """Returns a NIC with these rings and a link."""
    nic = Nic(MAC, world)
    nic.configure(rings)
    nic.carrier(True)
    return nic


def receive_ring(world: World, number: int = 0, size: int = 16, buffer: int = 2048, moderation: int = 0) -> Ring:
    """Returns a receive ring with a buffer in each descriptor but one, as a driver fills it."""
    ring = Ring(number, RING + number * 0x2000, size, buffer, vector=number, moderation=Moderation(moderation))
    for index in range(size):
        place = BUFFERS + (number * size + index) * buffer
        world.memory[ring.address(index) : ring.address(index) + 8] = place.to_bytes(8, "little")
    ring.tail = world.tails[number] = size - 1
    return ring


def received(world: World, ring: Ring, nic: Nic) -> list[tuple[bytes, bytes]]:
    """Returns what stands in a ring up to its head: (written descriptor, bytes) of each buffer."""
    found = []
    for index in range(nic.rings[ring.number].head):
        written = bytes(world.memory[ring.address(index) : ring.address(index) + 16])
        place = BUFFERS + (ring.number * ring.size + index) * ring.buffer_bytes
        found.append((written, bytes(world.memory[place : place + int.from_bytes(written[12:14], "little")])))
    return found


class Sender:
    """A driver that fills one transmit ring, one descriptor after the other."""

    def __init__(self, world: World, nic: Nic, ring: Ring) -> None:
        self.world, self.nic, self.ring = world, nic, ring
        self.tail = 0
        self._buffer = BUFFERS

    def context(self, context: TransmitContext) -> None:
        """Puts a context descriptor."""
        self._put(descriptors.context_descriptor(context))

    def frame(self, data: bytes, pieces: int = 1, **flags: bool | int) -> None:
        """Puts a frame, in pieces of about the same size."""
        size = -(-len(data) // pieces)
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        for number, part in enumerate(parts):
            self.world.memory[self._buffer : self._buffer + len(part)] = part
            self._put(
                descriptors.data_descriptor(
                    TransmitData(
                        address=self._buffer,
                        size=len(part),
                        is_last=number == len(parts) - 1,
                        wants_report=number == len(parts) - 1,
                        insert_vlan=bool(flags.get("insert_vlan", False)),
                        segment=bool(flags.get("segment", False)),
                        ip_sum=bool(flags.get("ip_sum", False)),
                        l4_sum=bool(flags.get("l4_sum", False)),
                        payload_bytes=int(flags.get("payload_bytes", 0)),
                    )
                )
            )
            self._buffer += len(part)

    def go(self) -> None:
        """Rings the doorbell, and lets what was put off happen."""
        self.world.tails[self.ring.number] = self.tail
        self.nic.doorbell(self.ring.number)
        self.world.run_until(self.world.now)

    def _put(self, raw: bytes) -> None:
        place = self.ring.address(self.tail)
        self.world.memory[place : place + 16] = raw
        self.tail = (self.tail + 1) % self.ring.size


def packet(
    payload: bytes = b"payload",
    protocol: int = TCP,
    version: int = 4,
    sequence: int = 1000,
    flags: int = 0x10,
    ports: tuple[int, int] = (1234, 80),
    vlan: int | None = None,
    target: bytes = MAC,
    options: bytes = b"",
) -> bytes:
    """Returns a frame with right lengths and checksums."""
    if protocol == TCP:
        offset = (20 + len(options)) // 4 << 4
        segment = b"".join(n.to_bytes(2, "big") for n in ports) + sequence.to_bytes(4, "big") + b"\0\0\0\1"
        segment += bytes([offset, flags]) + b"\x20\0\0\0\0\0" + options + payload
    else:
        segment = b"".join(n.to_bytes(2, "big") for n in (*ports, 8 + len(payload))) + b"\0\0" + payload
    if version == 4:
        header = b"\x45\0" + (20 + len(segment)).to_bytes(2, "big") + b"\0\7\x40\0\x40" + bytes([protocol]) + b"\0\0"
        header += bytes([10, 0, 0, 2]) + bytes([10, 0, 0, 1])
        ethertype = b"\x08\0"
    else:
        header = b"\x60\0\0\0" + len(segment).to_bytes(2, "big") + bytes([protocol, 64])
        header += bytes(15) + b"\2" + bytes(15) + b"\1"
        ethertype = b"\x86\xdd"
    tag = b"" if vlan is None else b"\x81\0" + vlan.to_bytes(2, "big")
    frame = bytearray(target + PEER + tag + ethertype + header + segment)
    headers = parse(frame)
    assert headers.protocol in (TCP, UDP)
    if version == 4:
        fill_ipv4_sum(frame, headers.l3, 20)
    fill_transport_sum(frame, headers)
    return bytes(frame)
