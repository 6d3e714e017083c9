"""A TCP/IP stack on the loop: its calls wait, its timers come in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import pytest
from tests.virtual_time import clock_of_loop

from lamina_kit.clock import Clock
from lamina_net.aio import NetShell
from lamina_net.stack import Stack
from lamina_net.tcp.interface import Endpoint, Errno, Refused

SECOND = 1_000_000_000
HERE, THERE, NOWHERE = 0x0A000001, 0x0A000002, 0x0A000063


@dataclass
class Pair:
    """Two hosts, joined by a wire that takes no time; `lost` says how many of the next frames it loses."""

    clock: Clock
    shells: list[NetShell] = field(default_factory=list)
    lost: int = 0

    def transmit(self, number: int, _interface: str, frame: bytes) -> None:
        """Bring a frame from a host to the other."""
        if self.lost:
            self.lost -= 1
        else:
            self.shells[1 - number].frame("eth0", frame)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Returns two hosts that run."""
    made = Pair(clock_of_loop())
    for number, address in enumerate((HERE, THERE)):
        stack = Stack(b"host %d" % number)
        stack.internet.add_interface("eth0", bytes([2, 0, 0, 0, 0, number]), 1500)
        assert stack.internet.add_address("eth0", address, 24)
        stack.drain()
        made.shells.append(NetShell(stack, made.clock, partial(made.transmit, number)))
    yield made
    for shell in made.shells:
        await shell.close()


def opened(handle: int | Refused) -> int:
    """Return a handle that was given."""
    assert not isinstance(handle, Refused)
    return handle


def listening(shell: NetShell, port: int) -> int:
    """Return a listener."""
    handle = opened(shell.stack.sockets.open_tcp())
    assert shell.stack.sockets.bind(handle, Endpoint(0, port)) is None
    assert shell.stack.sockets.listen(handle, 4) is None
    return handle


async def echo(shell: NetShell, listener: int) -> None:
    """Serve one client: whatever it says."""
    handle = opened(await shell.accept(listener))
    while data := await shell.recv(handle, 10_000):
        assert not isinstance(data, Refused)
        assert await shell.send_all(handle, data) is None
    assert shell.stack.sockets.close(handle, shell.stack.next_wakeup_ns or 0) is None
    shell.carry()


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_a_megabyte_comes_back(pair: Pair, lost: int) -> None:
    """Both sides wait for each other, for room and for bytes; frames that are lost are sent again in time."""
    here, there = pair.shells
    server = asyncio.create_task(echo(there, listening(there, 80)))
    client = opened(here.stack.sockets.open_tcp())
    pair.lost = lost
    assert await here.connect(client, Endpoint(THERE, 80)) is None
    data = bytes(range(250)) * 4000
    pair.lost = lost

    async def say() -> None:
        assert await here.send_all(client, data) is None
        assert here.stack.sockets.shutdown(client, pair.clock.now_ns()) is None
        here.carry()

    saying = asyncio.create_task(say())
    heard = bytearray()
    while piece := await here.recv(client, 65536):
        assert not isinstance(piece, Refused)
        heard += piece
    assert bytes(heard) == data
    await asyncio.gather(saying, server)


async def test_a_datagram_is_waited_for(pair: Pair) -> None:
    """A receiver waits until one comes, and hears whence."""
    here, there = pair.shells
    server, client = opened(there.stack.sockets.open_udp()), opened(here.stack.sockets.open_udp())
    assert there.stack.sockets.bind(server, Endpoint(0, 53)) is None
    waiting = asyncio.create_task(there.recv_from(server, 100))
    await asyncio.sleep(0)
    assert await here.connect(client, Endpoint(THERE, 53)) is None
    assert await here.send(client, b"hello") == 5
    received = await waiting
    assert not isinstance(received, Refused)
    assert (received[0], received[1].address) == (b"hello", HERE)


async def test_a_refusal_ends_the_waiting(pair: Pair) -> None:
    """A port that nobody has refuses a connection at once."""
    here, _ = pair.shells
    client = opened(here.stack.sockets.open_tcp())
    assert await here.connect(client, Endpoint(THERE, 81)) == Refused(Errno.CONNREFUSED)


async def test_a_host_that_is_not_there_ends_the_waiting_in_its_time(pair: Pair) -> None:
    """Connecting to nobody ends when ARP has asked three times, to which timers alone lead."""
    here, _ = pair.shells
    client = opened(here.stack.sockets.open_tcp())
    start_ns = pair.clock.now_ns()
    assert await here.connect(client, Endpoint(NOWHERE, 80)) == Refused(Errno.HOSTUNREACH)
    assert pair.clock.now_ns() - start_ns == 3 * SECOND


async def test_a_cancelled_call_leaves_nothing(pair: Pair) -> None:
    """Who gives up waiting is forgotten, and what comes later is there for the next call."""
    here, there = pair.shells
    server, client = opened(there.stack.sockets.open_udp()), opened(here.stack.sockets.open_udp())
    assert there.stack.sockets.bind(server, Endpoint(0, 53)) is None
    waiting = asyncio.create_task(there.recv(server, 100))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await here.send(client, b"late", Endpoint(THERE, 53)) == 4
    assert await there.recv(server, 100) == b"late"


async def test_two_wait_for_one_socket(pair: Pair) -> None:
    """Each of two readers gets a datagram of its own."""
    here, there = pair.shells
    server, client = opened(there.stack.sockets.open_udp()), opened(here.stack.sockets.open_udp())
    assert there.stack.sockets.bind(server, Endpoint(0, 53)) is None
    readers = [asyncio.create_task(there.recv(server, 100)) for _ in range(2)]
    await asyncio.sleep(0)
    for data in (b"one", b"two"):
        assert await here.send(client, data, Endpoint(THERE, 53)) == 3
    assert [await reader for reader in readers] in ([b"one", b"two"], [b"two", b"one"])


async def test_a_closed_shell_sets_no_timer(pair: Pair) -> None:
    """Frames that come after the end leave no task behind."""
    here, _ = pair.shells
    client = opened(here.stack.sockets.open_tcp())
    assert here.stack.sockets.connect(client, Endpoint(NOWHERE, 80), pair.clock.now_ns()) is None
    await here.close()
    before = asyncio.all_tasks()
    here.carry()
    assert here.stack.next_wakeup_ns is not None
    assert asyncio.all_tasks() == before


async def test_a_wire_that_raises_keeps_nobody_waiting() -> None:
    """Who waits is woken, and what was lost is sent again in its time, although a frame could not be given away."""
    clock, failures = clock_of_loop(), [OSError("the wire is cut")]
    sent: list[bytes] = []

    def transmit(_interface: str, frame: bytes) -> None:
        if failures:
            raise failures.pop()
        sent.append(frame)

    stack = Stack(b"host")
    stack.internet.add_interface("eth0", bytes([2, 0, 0, 0, 0, 1]), 1500)
    assert stack.internet.add_address("eth0", HERE, 24)
    stack.drain()
    shell = NetShell(stack, clock, transmit)
    client = opened(stack.sockets.open_tcp())
    with pytest.raises(OSError, match="cut"):
        await shell.connect(client, Endpoint(THERE, 80))
    await clock.sleep_ns(SECOND + 1)
    assert len(sent) == 1  # the question of ARP, again
    await shell.close()
