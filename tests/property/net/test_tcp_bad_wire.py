"""TCP over a wire that loses, reorders, doubles, delays and damages, by hundreds of seeds: all arrives in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from tests.property.net.wire import CLIENT, SERVER, Application, Badness, World

from lamina_kit.rng import Rng
from lamina_net.tcp.config import MILLISECOND, SECOND, Congestion, SocketOptions, TcpConfig

SEEDS = 320
CHUNK = 20
PATIENT = TcpConfig(
    user_timeout_ns=7200 * SECOND,  # what is tested is that everything arrives, not when somebody gives up
    connect_timeout_ns=7200 * SECOND,
    rto_max_ns=8 * SECOND,
    keepalive_idle_ns=60 * SECOND,
    keepalive_interval_ns=5 * SECOND,
)


@dataclass(frozen=True)
class Scenario:
    """What a seed stands for."""

    seed: int
    world: World
    client: Application
    server: Application
    options: SocketOptions

    def play(self) -> None:
        """Let it happen until nothing more does."""
        self.world.connect(self.client, self.server, self.options)
        self.world.run(10**6 * SECOND)


def badness(rng: Rng, mtu: int) -> Badness:
    """Draw what one direction of the wire does."""
    return Badness(
        loss=rng.choice([0, rng.random() * 0.05, rng.random() * 0.2]),
        duplicate=rng.choice([0, rng.random() * 0.2]),
        corrupt=rng.choice([0, rng.random() * 0.05]),
        reorder=rng.choice([0, rng.random() * 0.5]),
        late_ns=rng.choice([1, 5, 50, 400]) * MILLISECOND,
        delay_ns=rng.choice([0, 1, 20, 150]) * MILLISECOND,
        rate=rng.choice([0, 0, 300_000, 5_000_000]),
        queue=rng.choice([20_000, 200_000]),
        mtu=rng.choice([mtu, mtu, 600]),
    )


def scenario(seed: int, syn_backlog: int = 256) -> Scenario:
    """Draw everything from a seed: sizes, windows, options, both directions of the wire, how it ends."""
    rng = Rng(f"tcp/{seed}")
    mtu = rng.choice([296, 576, 1500, 1500, 9000, 65535])
    config = replace(
        PATIENT,
        buffer=rng.choice([2048, 16_384, 262_144]),
        max_buffer=rng.choice([262_144, 1 << 22]),
        selective_ack=rng.random() < 0.7,
        timestamps=rng.random() < 0.7,
        window_scaling=rng.random() < 0.7,
        syn_backlog=syn_backlog,
    )
    world = World(seed, badness(rng, mtu), badness(rng, mtu), config, mtu)
    most = min(max(mtu, 500) * 150, 500_000)
    ends = [
        Application(
            rng.randbytes(rng.choice([0, 1, rng.randrange(most)])),
            portion=rng.choice([1000, 1 << 20]),
            close_early=rng.random() < 0.5,
        )
        for _ in range(2)
    ]
    if seed % 8 == 0:
        ends[rng.randrange(2)].abort_after = rng.randrange(1, most)
    congestion = rng.choice([Congestion.CUBIC, Congestion.NEWRENO])
    options = SocketOptions(nodelay=rng.random() < 0.3, keepalive=True, congestion=congestion)
    return Scenario(seed, world, ends[0], ends[1], options)


def expect_complete(done: Scenario) -> None:
    """Every byte arrived in both directions, nothing more, and nobody is left."""
    for sender, receiver in ((done.client, done.server), (done.server, done.client)):
        assert receiver.received == sender.data
        assert receiver.saw_end
        assert receiver.errors == []
    assert [layer.connections() for layer in done.world.layers.values()] == [[], []]


def expect_reset(done: Scenario) -> None:
    """What arrived is the beginning of what was sent, and the other end heard of the reset."""
    for sender, receiver in ((done.client, done.server), (done.server, done.client)):
        assert sender.data.startswith(bytes(receiver.received))
    for app in (done.client, done.server):
        was_done = app.saw_end and app.sent == len(app.data)  # in LAST-ACK a reset is an end like another
        assert app.aborted or app.errors[:1] in (["CONNRESET"], ["TIMEDOUT"]) or was_done
    assert done.world.layers[CLIENT].connections() == []


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_byte_arrives_in_order(first: int) -> None:
    """Over a bad wire both streams arrive whole and end in order; after a reset what arrived is a beginning."""
    for seed in range(first, first + CHUNK):
        played = scenario(seed)
        try:
            played.play()
            if played.client.aborted or played.server.aborted:
                expect_reset(played)
            else:
                expect_complete(played)
        except AssertionError as error:
            error.add_note(f"seed {seed}: {played.world.counts}, {played.world.badness}")
            raise
        assert played.world.invariants.steps > 0


@pytest.mark.parametrize("seed", range(1, SEEDS, 40))
def test_a_seed_repeats_its_bytes(seed: int) -> None:
    """The same seed sends the same segments at the same instants."""
    first, second = scenario(seed), scenario(seed)
    first.play()
    second.play()
    assert first.world.trace.digest() == second.world.trace.digest()
    assert first.world.now == second.world.now
    assert first.world.counts == second.world.counts


@pytest.mark.parametrize("seed", range(4))
def test_megabytes_arrive(seed: int) -> None:
    """Megabytes in both directions at once, through loss and reordering, at window sizes that grow."""
    rng = Rng(f"megabytes/{seed}")
    bad = Badness(loss=0.01 * seed, reorder=0.05, duplicate=0.01, corrupt=0.002, late_ns=3 * MILLISECOND, mtu=9000)
    world = World(seed, bad, bad, PATIENT, 9000)
    client, server = Application(rng.randbytes(3 << 20)), Application(rng.randbytes(2 << 20))
    world.connect(client, server)
    world.run(3600 * SECOND)
    assert client.received == server.data
    assert server.received == client.data
    assert world.layers[CLIENT].connections() == world.layers[SERVER].connections() == []


@pytest.mark.parametrize("first", [1, 9])
def test_every_byte_arrives_where_all_begin_by_cookies(first: int) -> None:
    """A listener that remembers no SYN serves its peers over a bad wire as one that does."""
    for seed in range(first, first + 7):
        played = scenario(seed, syn_backlog=0)
        played.play()
        expect_complete(played)
        assert played.world.layers[SERVER].counters.cookies_taken == 1
