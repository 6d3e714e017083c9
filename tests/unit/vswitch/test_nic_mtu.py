"""A NIC is never shown a frame that is longer than its MTU, which stops its ring: neither before nor after a change."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from lamina_vswitch.domain.uplink.nic import plan
from lamina_vswitch.domain.uplink.nic.queue_pair import QueuePair
from lamina_vswitch.io.nic.driver import HardwareBelow, NicDriver, NicWish

LONG = bytes(9014)


class Memory:
    """DMA memory that is nobody else's."""

    def __init__(self) -> None:
        self.bytes = bytearray(plan.PAIR_BYTES)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes."""
        return bytes(self.bytes[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes."""
        self.bytes[offset : offset + len(data)] = data


class Nics:
    """Hardware that answers when it is let."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[int, list[str]]] = asyncio.Queue()
        self.answer = asyncio.Event()

    async def UpdateNic(self, request: Any, metadata: Any) -> None:
        """Note what is asked, and answer when it is let."""
        self.asked.put_nowait((request.nic.mtu_bytes, sorted(request.update_mask.paths)))
        await self.answer.wait()
        self.answer.clear()

    async def next(self) -> tuple[int, list[str]]:
        """Return the next question."""
        async with asyncio.timeout(10):
            return await self.asked.get()


def wish(mtu_bytes: int, link_up: bool = True) -> NicWish:
    """Return what is wanted of the NIC."""
    return NicWish("hosts/h1/nics/nic0", mtu_bytes, link_up)


def driver(mtu_bytes: int, nics: Nics, memory: Memory) -> NicDriver:
    """Return a driver as it is when it has been opened."""
    below = SimpleNamespace(nics=nics, session=SimpleNamespace(metadata=()))
    made = NicDriver(cast("HardwareBelow", below), wish(mtu_bytes), cast("Any", None))
    made.pairs.append(QueuePair(memory, 1 << 28, plan.pair(0)))
    return made


async def test_a_larger_mtu_is_used_when_the_nic_has_it() -> None:
    """Until hardware has answered, a frame of the new length is lost and not shown to the NIC."""
    nics = Nics()
    made = driver(1500, nics, Memory())
    task = asyncio.get_running_loop().create_task(made._write_settings())
    made.want(wish(9000))
    assert await nics.next() == (9000, ["admin_up", "mtu_bytes"])
    assert made.send([LONG]) == ([], [LONG])
    nics.answer.set()
    made.want(wish(9000, link_up=False))
    await nics.next()  # so the first was answered
    assert made.send([LONG]) == ([LONG], [])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_smaller_mtu_waits_for_longer_frames() -> None:
    """The NIC keeps its MTU until the frames in its ring are sent, while its link follows; no new one is put there."""
    nics, memory = Nics(), Memory()
    made = driver(9000, nics, memory)
    task = asyncio.get_running_loop().create_task(made._write_settings())
    assert made.send([LONG]) == ([LONG], [])
    made.want(wish(1500, link_up=False))
    assert await nics.next() == (1500, ["admin_up"])
    nics.answer.set()
    assert made.send([LONG, bytes(1514)]) == ([bytes(1514)], [LONG])
    memory.bytes[plan.pair(0).transmit_ring + 12] = 1  # done, as the NIC reports it
    made._serve_pair(made.pairs[0], 0)
    assert await nics.next() == (1500, ["admin_up", "mtu_bytes"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
