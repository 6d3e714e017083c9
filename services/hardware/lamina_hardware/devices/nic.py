"""A NIC as a device of the host: between `DevicePorts` and the NIC's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_hardware.domain.devices.device import DevicePorts
from lamina_hardware.domain.nic.nic import Nic
from lamina_hardware.domain.nic.ring import Ring
from lamina_hardware.domain.nic.settings import Settings

RECEIVE_QUEUES = TRANSMIT_QUEUES = 128
VECTORS = 256

Send = Callable[[Sequence[bytes]], None]


class NicDevice:
    """One NIC. `send` is where its frames go, `link_changed` hears of its link."""

    vector_count = VECTORS
    queue_limit = RECEIVE_QUEUES + TRANSMIT_QUEUES

    def __init__(self, mac: bytes) -> None:
        self._mac = mac
        self.send: Send = lambda frames: None
        self.link_changed: Callable[[bool], None] = lambda up: None
        self.rate = 0
        self._has_carrier = False
        self._told: tuple[bool, int] = (False, 0)
        self._broken = False

    @property
    def queue_count(self) -> int:
        """Queues that are configured, counted up to the highest number."""
        return max(self.nic.rings, default=-1) + 1

    def connect(self, ports: DevicePorts) -> None:
        """Gives it what it works with."""
        self._ports = ports
        self.nic = Nic(self._mac, _Ports(self, ports))

    def reset(self) -> None:
        """Brings the NIC into its state after power-on."""
        self.nic.reset()
        self.tell_link()

    def doorbell(self, queue: int, tail: int) -> None:
        """Says that there may be work in a queue. A tail outside the ring stops the queue, not the stream."""
        self.nic.doorbell(queue)

    def configure(self, rings: Sequence[Ring]) -> None:
        """Replaces the rings."""
        self.nic.configure(rings)
        self._ports.set_queues(self.queue_count)

    def change(self, settings: Settings) -> None:
        """Takes new settings."""
        self.nic.change(settings)
        self.tell_link()

    def carrier(self, has_carrier: bool, rate: int) -> None:
        """Notes that the wire carries, at a rate in bits a second, or no longer."""
        self.rate, self._has_carrier = rate, has_carrier
        self._show_carrier()

    def break_link(self, broken: bool) -> None:
        """Takes the carrier away whatever the wire does, or gives it back."""
        self._broken = broken
        self._show_carrier()

    def _show_carrier(self) -> None:
        self.nic.carrier(self._has_carrier and not self._broken)
        self.tell_link()

    def tell_link(self) -> None:
        """Tells the driver when the link or its rate changed, and whoever watches when it went up or down."""
        up = self.nic.is_link_up
        link, told = (up, self.rate if up else 0), self._told
        if link != told:
            self._told = link
            self._ports.set_link(*link)
        if up != told[0]:
            self.link_changed(up)


class _Ports:
    """What a `Nic` has from outside, made of what a device has."""

    def __init__(self, device: NicDevice, ports: DevicePorts) -> None:
        self._device = device
        self._ports = ports

    def read(self, iova: int, size: int, queue: int) -> bytes:
        """See `NicPorts.read`."""
        return self._ports.dma.read(iova, size, queue=queue)

    def write(self, iova: int, data: bytes, queue: int) -> None:
        """See `NicPorts.write`."""
        self._ports.dma.write(iova, data, queue=queue)

    def check(self, iova: int, size: int, queue: int) -> None:
        """See `NicPorts.check`."""
        self._ports.dma.check(iova, size, write=True, queue=queue)

    def interrupt(self, vector: int, queue: int) -> None:
        """See `NicPorts.interrupt`."""
        self._ports.interrupt(vector, queue)

    def tail(self, queue: int) -> int:
        """See `NicPorts.tail`."""
        return self._ports.tail(queue)

    def sleep(self, queue: int) -> bool:
        """See `NicPorts.sleep`."""
        return not self._ports.sleep(queue)

    def publish(self, queue: int, head: int) -> None:
        """See `NicPorts.publish`."""
        self._ports.set_head(queue, head)

    def send(self, frames: Sequence[bytes]) -> None:
        """See `NicPorts.send`."""
        self._device.send(frames)

    def now_ns(self) -> int:
        """See `NicPorts.now_ns`."""
        return self._ports.now_ns()

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> None:
        """See `NicPorts.call_at`."""
        self._ports.call_at(when_ns, callback)

    def stopped(self, queue: int, reason: str) -> None:
        """See `NicPorts.stopped`."""
        self._ports.record("queue.stopped", rule=reason, queue=queue)
