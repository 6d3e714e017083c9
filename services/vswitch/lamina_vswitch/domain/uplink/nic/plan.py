"""How a NIC is set up: how many queue pairs, what lies where in DMA memory, which flow comes to which queue."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_vswitch.domain.uplink.nic.descriptors import BYTES

MOST_PAIRS = 4
"""Queue pairs that are used where the NIC has them. The contract allows 16; one process serves them all."""

RECEIVE_DESCRIPTORS, TRANSMIT_DESCRIPTORS = 512, 512
BUFFER_BYTES = 2048
"""Bytes of one receive buffer; longer frames lie in several."""
TRANSMIT_BYTES = 512 << 10
"""Bytes of frames that are under way at a queue."""

_RECEIVE_RING = 0
_TRANSMIT_RING = _RECEIVE_RING + RECEIVE_DESCRIPTORS * BYTES
_RECEIVE_BUFFERS = _TRANSMIT_RING + TRANSMIT_DESCRIPTORS * BYTES
_TRANSMIT_BUFFERS = _RECEIVE_BUFFERS + RECEIVE_DESCRIPTORS * BUFFER_BYTES
PAIR_BYTES = _TRANSMIT_BUFFERS + TRANSMIT_BYTES

HASH_KEY = bytes((0x6D, 0x5A)) * 20
"""Key of the receive hash, under which both directions of a flow hash alike.

Source: Woo, Park: Scalable TCP Session Monitoring with Symmetric Receive-side Scaling (KAIST, 2012).
"""
TABLE_ENTRIES = 128


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a queue pair lies: offsets of its rings and buffers."""

    receive_ring: int
    transmit_ring: int
    receive_buffers: int
    transmit_buffers: int


def pairs_of(receive_queues: int, transmit_queues: int, vectors: int) -> int:
    """Return how many queue pairs to use of a NIC with so many queues and interrupt vectors, at least 1."""
    return max(1, min(receive_queues, transmit_queues, vectors, MOST_PAIRS))


def pair(number: int) -> Pair:
    """Return where a queue pair lies in DMA memory of `PAIR_BYTES` for each."""
    base = number * PAIR_BYTES
    return Pair(base + _RECEIVE_RING, base + _TRANSMIT_RING, base + _RECEIVE_BUFFERS, base + _TRANSMIT_BUFFERS)


def receive_table(pairs: int) -> list[int]:
    """Return the queue of each value of the hash's low seven bits."""
    return [value % pairs for value in range(TABLE_ENTRIES)]
