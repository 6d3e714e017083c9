"""A TUN device in the event loop: packets of a network into the kernel, and those of the kernel to its router."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Protocol

STEP_PACKETS = 64
"""Packets that are read before others of this process have their turn."""
_IPV4 = 4


class PacketDevice(Protocol):
    """What packets go by."""

    file: int

    def write(self, packet: bytes) -> bool:
        """Give it a packet. False: it did not take it."""

    def read(self) -> bytes | None:
        """Return its next packet; None when there is none. Raises OSError when the device is gone."""


class TunPort:
    """`inside` takes what comes; `lost` each packet that the kernel did not take; `failed` why the device is gone."""

    def __init__(
        self, device: PacketDevice, inside: Callable[[Sequence[bytes]], None], lost: Callable[[bytes, int], None],
        failed: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._device, self._inside, self._lost, self._failed = device, inside, lost, failed
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(device.file, self._readable)
        self._is_open = True

    def send(self, packets: Sequence[bytes], now_ns: int) -> None:
        """Give packets to the kernel."""
        for packet in packets:
            if not self._is_open or not self._device.write(packet):
                self._lost(packet, now_ns)

    def close(self) -> None:
        """Read no longer. Idempotent; before the device is closed."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._device.file)

    def _readable(self) -> None:
        packets: list[bytes] = []
        for _ in range(STEP_PACKETS):
            try:
                packet = self._device.read()
            except OSError as error:
                self.close()
                self._failed(os.strerror(error.errno or 0))
                break
            if packet is None:
                break
            if packet and packet[0] >> 4 == _IPV4:
                packets.append(packet)
        if packets:
            self._inside(packets)
