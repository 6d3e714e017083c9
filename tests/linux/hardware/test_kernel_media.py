"""Wires to the kernel's own network: a TAP device and a packet socket on it hear each other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from lamina_hardware.io.media.kernel import TapMedium
from lamina_hardware.io.media.packet import PacketMedium
from lamina_kit.errors import PermissionDenied, Unavailable

BROADCAST, OURS = b"\xff" * 6, bytes.fromhex("020000000001")
ETHERTYPE = b"\x88\xb5"
"""For local experiments (IEEE 802)."""


def frame(payload: bytes, tag: bytes = b"") -> bytes:
    """Returns a broadcast frame that the kernel itself does nothing with."""
    return BROADCAST + OURS + tag + ETHERTYPE + payload.ljust(60, b"\0")


@pytest.fixture
def name() -> str:
    """Returns the name of an interface of this process."""
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        pytest.skip("a TAP device needs root and /dev/net/tun")
    return f"lm{os.getpid() % 1_000_000}"


async def test_tap_and_packet_socket_hear_each_other(name: str, eventually: Callable[..., object]) -> None:
    """What goes into the TAP device is heard on the interface, and the other way round, tags included."""
    tap = TapMedium(name)
    packet = PacketMedium(name)
    from_tap: list[bytes] = []
    from_packet: list[bytes] = []
    loop = asyncio.get_running_loop()
    tap.attach(loop, from_tap.extend)
    packet.attach(loop, from_packet.extend)
    try:
        up = [frame(b"one"), frame(b"two", b"\x81\x00\x20\x64")]
        tap.send(up)
        await eventually(lambda: [f for f in from_packet if f[6:12] == OURS] == up, "frames at the packet socket")  # type: ignore[misc]
        down = frame(b"three")
        packet.send([down])
        await eventually(lambda: down in from_tap, "the frame at the TAP device")  # type: ignore[misc]
        assert down not in from_packet
        assert tap.lost == packet.lost == 0
    finally:
        packet.close()
        tap.close()
        tap.close()


def test_a_taken_device_is_told(name: str) -> None:
    """A device that somebody has, and an interface that is not there, are refused with their reason."""
    tap = TapMedium(name)
    try:
        with pytest.raises(Unavailable) as taken:
            TapMedium(name)
        assert taken.value.reason == "WIRE_ADDRESS_IN_USE"
        with pytest.raises((Unavailable, PermissionDenied)) as missing:
            PacketMedium("nowhere0")
        assert missing.value.reason == "WIRE_ADDRESS_IN_USE"
    finally:
        tap.close()
