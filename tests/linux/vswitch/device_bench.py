"""A switch in the kernel, and devices of the kernel at its ports, which packet sockets play."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from tests.linux.hardware.network import Network, needs_network

from lamina_vswitch.domain.backend.definition import Veth
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.policy.settings import PolicyInForce
from lamina_vswitch.domain.sampling import Notice
from lamina_vswitch.engines.linux.engine import LinuxEngine
from lamina_vswitch.io.backends.veth import VethBackend

SWITCH = "hosts/h1/switches/s"
ALL = b"\xff" * 6
A, B, C, D = (bytes([2, 0, 0, 0, 0, number]) for number in (10, 11, 12, 13))


def frame(dst: bytes, src: bytes, tags: bytes = b"", body: bytes = b"\x88\xb5", size: int = 60) -> bytes:
    """Return a frame that no kernel answers."""
    return (dst + src + tags + body).ljust(size, b"\0")


def tag(vlan: int, priority: int = 0) -> bytes:
    """Return four bytes of tag."""
    return b"\x81\x00" + (priority << 13 | vlan).to_bytes(2, "big")


def long_tcp(size: int) -> tuple[bytes, bytes]:
    """Return header and bytes of a frame of TCP over IPv4 that is to be cut into segments of 1400 bytes."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + size, 1, 0, 64, 6, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 1000, 0, 0)
    return struct.pack("<BBHHHH", 1, 1, 54, 1400, 34, 16), B + A + b"\x08\0" + ip + tcp + bytes(size)


def open_files() -> set[tuple[str, str]]:
    """Return number and name of every file that this process has open; others may be closed meanwhile, late."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


class Sink:
    """A device of this process behind a port."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Take all."""
        self.frames.extend(frames)
        return len(frames)

    def link_changed(self, up: bool) -> None:
        """Do nothing."""

    def removed(self) -> None:
        """Do nothing."""


class Bench:
    """A switch in the kernel. Interfaces of its veths are in `network`, where packet sockets play the devices."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.notices: list[Notice] = []
        self.engine = LinuxEngine(self.notices.append)
        self.engine.add_switch(SWITCH, SwitchDefinition("s"))
        self.veths: dict[int, VethBackend] = {}
        self.ends: dict[int, socket.socket] = {}
        self.sinks: dict[int, Sink] = {}

    def veth(self, slot: int, vlan: int = 0, **policy: Any) -> None:
        """Make a port that is a device of the kernel, and be what is behind it."""
        self.engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", vlan, True)
        self.let(slot, vlan, **policy)
        made = self.network.do(lambda: VethBackend(self.engine, slot, Veth(f"dev{slot}", up=True)))
        self.engine.attach(slot, made, 0, made.takes)
        made.start()
        self.veths[slot], self.ends[slot] = made, self.network.end(f"dev{slot}")

    def port(self, slot: int, vlan: int = 0) -> None:
        """Make a port of this process."""
        self.engine.add_port(SWITCH, slot, f"{SWITCH}/ports/p{slot}", vlan, True)
        self.sinks[slot] = Sink()
        self.engine.attach(slot, self.sinks[slot], 0)

    def let(self, slot: int, vlan: int = 0, **parts: Any) -> None:
        """Let a policy hold for a port."""
        self.engine.set_policy(slot, vlan, PolicyInForce(**parts), 0)

    def send(self, slot: int, *frames: bytes) -> None:
        """Send frames from a device; the kernel has switched them when this returns."""
        for each in frames:
            self.ends[slot].send(each)
        self.engine.listen_outside(0)

    def heard(self, slot: int) -> list[bytes]:
        """Return what a device has heard since, without what it sent; tags that lie beside a frame are put in."""
        if slot in self.sinks:
            frames, self.sinks[slot].frames = self.sinks[slot].frames, []
            return frames
        found: list[bytes] = []
        while True:
            try:
                data, ancillary, _, source = self.ends[slot].recvmsg(4096, 256)
            except BlockingIOError:
                return found
            if source[2] != socket.PACKET_OUTGOING:
                found.append(_tagged(data, ancillary))

    def drops(self, slot: int) -> dict[str, int]:
        """Return the drops at a port by reason."""
        return {reason.name: count for reason, count in self.engine.counters(slot).drops_by_reason()}

    def close(self) -> None:
        """End everything."""
        for end in self.ends.values():
            end.close()
        for veth in self.veths.values():
            veth.close()
        self.engine.close()


def _tagged(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """Return a frame with the tag that the kernel tells of beside it (packet(7), PACKET_AUXDATA)."""
    for _, _, told in ancillary:
        status, tci, kind = int.from_bytes(told[:4], "little"), told[16:18], told[18:20]
        if status & 0x10:
            return data[:12] + kind[::-1] + tci[::-1] + data[12:]
    return data


@contextmanager
def opened() -> Iterator[Bench]:
    """Return a switch in the kernel."""
    needs_network()
    if reasons := LinuxEngine.missing():
        pytest.skip(f"engine linux: {'; '.join(reasons)}")
    if shutil.which("nft") is None:
        pytest.skip("there is no program nft")
    network = Network()
    try:
        network.do(_quiet)
        made = Bench(network)
        try:
            yield made
        finally:
            made.close()
    finally:
        network.close()


def _quiet() -> None:
    with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
        file.write("1")
