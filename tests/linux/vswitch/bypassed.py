"""A switch at three interfaces of a network namespace of its own, with a bypass or without; ends are packet sockets."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.linux.hardware.network import Network

from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.backend.definition import Packet
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.ebpf import bypass as code
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.backends.bypass import Bypass
from lamina_vswitch.io.backends.device_state import DeviceState
from lamina_vswitch.io.backends.junction import Junction
from lamina_vswitch.io.backends.packet import PacketBackend
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.plane.switching import Plane

SLOTS = (1, 2, 3)
A, B, C = (bytes.fromhex(f"0200000000{n:02x}") for n in (1, 2, 3))
BROADCAST = b"\xff" * 6
MTU_BYTES = 1000
_QUEUE_BYTES, _RCVBUFFORCE, _SOL_PACKET, _IGNORE_OUTGOING = 8 << 20, 33, 263, 23


def needs_bypass() -> None:
    """Skip the test where the kernel does not let programs of eBPF run."""
    try:
        Bypass(ModelEngine(lambda notice: None)).close()
    except LaminaError as error:
        pytest.skip(error.message)


def frame(dst: bytes, src: bytes, text: str = "", size: int = 60) -> bytes:
    """Return a frame that the kernel does nothing with."""
    return (dst + src + b"\x88\xb5" + text.encode()).ljust(size, b"\0")


class World:
    """The switch. `ends` are the other ends of its interfaces, by slot."""

    def __init__(self, *, bypassed: bool, plane: bool) -> None:
        self.network = Network(1500)
        self.network.do(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))
        self.engine = ModelEngine(lambda notice: None)
        self.engine.add_switch("s", SwitchDefinition("s", mtu_bytes=MTU_BYTES))
        self.bypass = self.network.do(lambda: Bypass(self.engine)) if bypassed else None
        self.backends: dict[int, PacketBackend] = {}
        self.ends: dict[int, socket.socket] = {}
        self.sent = self._count = 0
        self._heard: dict[int, list[bytes]] = {slot: [] for slot in SLOTS}
        self.batch(*(f"link add name s{slot} type veth peer name e{slot}" for slot in SLOTS))
        self.batch(*(f"link set {end}{slot} up" for slot in SLOTS for end in "se"))
        for slot in SLOTS:
            self.engine.add_port("s", slot, f"p{slot}", 0, True)
            self.ends[slot] = self.network.end(f"e{slot}")
            self.ends[slot].setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _QUEUE_BYTES)
            self.ends[slot].setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            self.plug(slot, plane=plane)

    def batch(self, *commands: str) -> None:
        """Run commands of ip in one process."""
        text = "\n".join(commands)
        ran = ["ip", "-batch", "-"]
        self.network.do(lambda: subprocess.run(ran, input=text, text=True, check=True, capture_output=True, timeout=20))

    def opened(self, slot: int, interface: str) -> PacketBackend:
        """Return a backend for a port at an interface."""
        end = PortEnd(self.engine, slot, lambda: MTU_BYTES, time.monotonic_ns)
        return self.network.do(lambda: PacketBackend(end, Packet(interface), 4096, self.bypass))

    def plug(self, slot: int, *, plane: bool) -> None:
        """Plug a backend into a port."""
        backend = self.opened(slot, f"s{slot}")
        assert backend.bypass_failure == ""
        self.engine.attach(slot, backend, time.monotonic_ns(), backend.takes)
        backend.start()
        if plane:
            backend.quicken(Plane(self.engine, 1))
        self.backends[slot] = backend

    def junction(self, slot: int) -> Junction:
        """Return the junction of a port."""
        found = self.backends[slot]._junction
        assert found is not None
        return found

    async def ready(self, name: str) -> None:
        """Wait until an interface can send, and the bypass knows it of those of the switch."""
        state = self.network.do(lambda: DeviceState(socket.if_nametoindex(name)))
        await self.until(lambda: state.changed() or state.free)
        state.close()
        for slot in sorted(self.backends) if self.bypass is not None and name.startswith("e") else ():
            device = self.junction(slot)._member.device
            await self.until(lambda device=device: device.free)  # type: ignore[misc]

    def handed(self, slot: int) -> int:
        """Return how many frames the kernel has handed to the socket of a port."""
        assert self.bypass is not None
        return self.bypass.word(self.junction(slot)._member, code.HANDED)

    def received(self) -> int:
        """Return how many frames came in at all ports."""
        return sum(self.engine.counters(slot).received_frames for slot in SLOTS)

    def put(self, slot: int, frames: Sequence[bytes]) -> None:
        """Send frames from an end."""
        for each in frames:
            self.ends[slot].send(each)
        self.sent += len(frames)

    async def send(self, slot: int, *frames: bytes) -> None:
        """Send frames from an end, and wait until they are switched."""
        self.put(slot, frames)
        await self.until(lambda: self.received() == self.sent)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the loop run until something holds."""
        end = asyncio.get_running_loop().time() + 30
        while True:
            if condition():
                return
            assert asyncio.get_running_loop().time() < end, "it never came to be"
            await asyncio.sleep(0)

    async def arrived(self, slot: int) -> list[bytes]:
        """Return what arrived at an end since the last time, in order, once all that was sent is there.

        The kernel may hand a frame on a while after it was counted.
        """
        await self.until(lambda: self._listen() == sum(self.engine.counters(each).sent_frames for each in SLOTS))
        found, self._heard[slot] = self._heard[slot], []
        return found

    def _listen(self) -> int:
        """Take what lies at all ends; return how many frames that were so far."""
        for slot in SLOTS:
            while True:
                try:
                    self._heard[slot].append(self.ends[slot].recv(65536))
                except BlockingIOError:
                    break
                self._count += 1
        return self._count

    def close(self) -> None:
        """Close everything; interfaces go with the namespace."""
        for slot in sorted(self.backends):
            self.backends[slot].close()
        for end in self.ends.values():
            end.close()
        if self.bypass is not None:
            self.bypass.close()
        self.network.close()


async def acquainted(world: World) -> None:
    """Have the kernel know A at port 1 and B at port 2."""
    await world.send(2, frame(A, B))
    for _ in range(2):
        await world.send(1, frame(B, A))
        await world.send(2, frame(A, B))
    before = world.handed(1)
    await world.send(1, frame(B, A))
    assert world.handed(1) == before
    for slot in SLOTS:
        await world.arrived(slot)
