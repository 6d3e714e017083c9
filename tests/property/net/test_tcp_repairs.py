"""What tail probes, doubted timeouts and marks are good for, by counters over many connections on a bad wire."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.property.net.wire import CLIENT, MS, SERVER, Application, Badness, World

from lamina_net.offload.long_packets import cut_packet
from lamina_net.packets import ipv4
from lamina_net.tcp.config import SECOND, Ecn, TcpConfig
from lamina_net.tcp.counters import Repairs
from lamina_net.tcp.interface import Packet

PATIENT = TcpConfig(user_timeout_ns=7200 * SECOND, connect_timeout_ns=7200 * SECOND)
SEEDS = range(10)


class CuttingWorld(World):
    """A wire that besides loses or holds what a test says: `fate` gives the ns of delay, or -1."""

    fate: Callable[[int, Packet], int] = staticmethod(lambda now, packet: 0)

    def _send(self, packet: Packet) -> None:
        late = self.fate(self.now, packet)
        if late >= 0:
            self._at(self.now + 20 * MS + late, "packet", packet.dst, packet)


def played(seed: int, size: int, config: TcpConfig, fate: Callable[[int, Packet], int]) -> tuple[int, Repairs]:
    """Return how long `size` bytes took to the server, in ns, and what the client's TCP did for them."""
    world = CuttingWorld(seed, Badness(), Badness(), config)
    world.fate = fate
    client, server = Application(bytes(range(256)) * (size // 256)), Application(b"")
    world.connect(client, server)
    while not server.saw_end:
        world.run(world.now + 5 * MS)
        if world._next() is not None:
            world.now = max(world.now, min(world._next() or 0, world.now + 5 * MS))
    assert server.received == client.data
    return world.now, world.layers[CLIENT].repairs


def lost_tail(count: int) -> Callable[[int, Packet], int]:
    """Return a fate that loses the last `count` segments of 14,592 bytes, the first time that they come."""
    seen: set[int] = set()
    order: list[int] = []

    def fate(now: int, packet: Packet) -> int:
        number = int.from_bytes(packet.data[4:8], "big")
        if packet.src != CLIENT or len(packet.data) < 100 or number in seen:
            return 0
        seen.add(number)
        order.append(number)
        return -1 if len(order) > 11 - count else 0

    return fate


def test_tail_probes_find_lost_ends_without_a_timeout() -> None:
    """Of connections that lose their last segments none waits for the timeout; without probes each does."""
    for count in (1, 2, 3, 5):
        fast, repairs = played(count, 14_592, PATIENT, lost_tail(count))
        slow, without = played(count, 14_592, replace(PATIENT, tail_probes=False), lost_tail(count))
        assert (repairs.timeouts, without.timeouts) == (0, 1), count
        assert repairs.tail_probes >= 1
        # where only one is lost, its probe goes when the timeout would have come, and saves the window alone
        assert fast < slow - 50 * MS or count == 1


def held_once(seed: int) -> Callable[[int, Packet], int]:
    """Return a fate that holds everything the client sends in 400 ms until they are over, in its order."""
    began, ends = (60 + 5 * seed) * MS, (460 + 5 * seed) * MS

    def fate(now: int, packet: Packet) -> int:
        if packet.src == CLIENT and began <= now < ends:
            return ends - now
        return 0

    return fate


def test_spurious_timeouts_cost_fewer_segments() -> None:
    """A path that stands still for 400 ms makes timeouts; doubting them sends fewer segments again."""
    sums = []
    for config in (PATIENT, replace(PATIENT, spurious_timeouts=False)):
        again = spurious = timeouts = 0
        for seed in SEEDS:
            world = CuttingWorld(seed, Badness(), Badness(), replace(config, tail_probes=False))
            world.fate = held_once(seed)
            client, server = Application(bytes(400_000)), Application(b"")
            world.connect(client, server)
            world.run(600 * SECOND)
            assert server.received == client.data
            again += world.layers[CLIENT].retransmitted
            spurious += world.layers[CLIENT].repairs.spurious
            timeouts += world.layers[CLIENT].repairs.timeouts
        sums.append((again, spurious, timeouts))
    (again, spurious, timeouts), (before, never, _) = sums
    assert timeouts >= spurious > 0 == never
    assert again < before // 2, sums


def test_marks_slow_a_sender_down_without_loss() -> None:
    """Through a router that marks a twentieth of all packets everything arrives, and nothing goes twice."""
    for seed in range(8):
        bad = Badness(mark=0.05, delay_ns=5 * MS)
        world = World(seed, bad, bad, replace(PATIENT, ecn=Ecn.ASK))
        client, server = Application(bytes(200_000)), Application(bytes(150_000))
        world.connect(client, server)
        world.run(600 * SECOND)
        assert client.received == server.data
        assert server.received == client.data
        repairs = [world.layers[end].repairs for end in (CLIENT, SERVER)]
        assert sum(each.marks for each in repairs) == world.counts["marked"] > 0
        assert all(each.slowed > 0 for each in repairs)
        assert [world.layers[end].retransmitted for end in (CLIENT, SERVER)] == [0, 0]


class BatchWorld(World):
    """A wire whose devices cut long packets, and bring together what arrives within a millisecond."""

    def _send(self, packet: Packet) -> None:
        whole = ipv4.Packet(packet.src, packet.dst, ipv4.TCP, packet.data)
        for piece in cut_packet(whole, packet.segment_bytes):
            super()._send(packet._replace(data=piece.payload, segment_bytes=0))

    def _deliver(self) -> None:
        layers = list(self.layers.values())
        for layer in layers:
            layer.hold()
        super()._deliver()
        while self._events and self._events[0][0] <= self.now + MS:
            super()._deliver()
        for layer in layers:
            layer.release(self.now)


def batched(seed: int) -> tuple[str, int, int]:
    """Return what passed between two ends that speak in long packets over a wire that loses, swaps and marks."""
    bad = Badness(loss=0.02, reorder=0.05, duplicate=0.02, mark=0.02, rate=5_000_000)
    world = BatchWorld(seed, bad, bad, replace(PATIENT, ecn=Ecn.ASK, burst=65_160))
    client, server = Application(bytes(range(250)) * 800), Application(bytes(range(251)) * 600)
    world.connect(client, server)
    world.run(600 * SECOND)
    assert client.received == server.data and server.received == client.data
    repairs = [world.layers[end].repairs for end in (CLIENT, SERVER)]
    assert sum(each.marks for each in repairs) > 0
    assert sum(world.layers[end].retransmitted for end in (CLIENT, SERVER)) > 0
    return world.trace.hexdigest(), world.now, world.counts["packets"]


def test_long_packets_and_batches_bring_every_byte_and_the_same_twice() -> None:
    """Cut behind the sender and answered together, both streams arrive whole; a seed repeats its bytes and times."""
    first = [batched(seed) for seed in range(3)]
    assert first == [batched(seed) for seed in range(3)]
    assert len(set(first)) == 3


def test_a_path_that_reorders_costs_few_retransmissions() -> None:
    """Where a tenth of all packets is late by up to 15 ms and none is lost, hardly anything goes twice."""
    for seed in range(3):
        late = Badness(delay_ns=20 * MS, reorder=0.1, late_ns=15 * MS, rate=5_000_000)
        world = World(seed, late, Badness(delay_ns=20 * MS), PATIENT)
        client, server = Application(bytes(range(256)) * 8000), Application(b"")
        world.connect(client, server)
        world.run(10**5 * SECOND)
        assert server.received == client.data
        # the first few teach it; with a window that does not adapt there are fifty and more
        assert world.layers[CLIENT].retransmitted <= 10
        assert world.counts["packets"] > 1400
