"""A driver's hold on a device: the device page, and what waits for the stream. `serving/devices.py` serves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lamina_hardware.domain.devices.device import Device
from lamina_hardware.domain.devices.drive import Outbox, Told
from lamina_kit.bus.device_page import DevicePage
from lamina_kit.errors import LaminaError, OutOfRange


class Drive:
    """One driver of one device, from the begin of its stream to the end.

    `changed` is called when there is something to send. `ended`, when set, is why the stream must end.
    """

    def __init__(self, device: Device, page: DevicePage) -> None:
        self.device = device
        self.page = page
        self.changed: Callable[[], None] = lambda: None
        self.ended: LaminaError | None = None
        self.clear()

    def clear(self) -> None:
        """Starts anew, as after a reset of the device: page, interrupts and masks."""
        model = self.device.model
        self._outbox = Outbox()
        self._seen = [0] * model.queue_limit
        self._writes_page = [False] * model.queue_limit
        self.page.clear(model.queue_count)

    def end(self, error: LaminaError) -> None:
        """Has the stream end with an error."""
        self.ended = self.ended or error
        self.changed()

    def take(self) -> Told | None:
        """Returns the next thing to send, if there is one."""
        return self._outbox.take()

    # ── from the driver ──────────────────────────────────────────────────────────────────────────────────────────

    def ring(self, queues: Sequence[tuple[int, int]]) -> None:
        """Takes doorbells (queue, tail).

        Raises `OutOfRange` `QUEUE_UNKNOWN`, or what the device says of the tail.
        """
        for queue, _ in queues:
            if not 0 <= queue < self.device.model.queue_count:
                raise OutOfRange(
                    f"{self.device.id} has no queue {queue} now; it has {self.device.model.queue_count}.",
                    reason="QUEUE_UNKNOWN",
                    next_step="Configure the queue first.",
                    queue=queue,
                )
        for queue, tail in queues:
            if not self._writes_page[queue] and self.page.take_message(queue, self._seen[queue], tail):
                self._seen[queue] = tail
            self.page.wake_device(queue)
            self.device.model.doorbell(queue, self.tail(queue))

    def mask(self, masked: Sequence[int], unmasked: Sequence[int]) -> None:
        """Masks and unmasks vectors."""
        self._outbox.mask(list(masked))
        self._outbox.unmask(list(unmasked))
        self.changed()

    # ── from the device ──────────────────────────────────────────────────────────────────────────────────────────

    def tail(self, queue: int) -> int:
        """Returns the driver's index. A page that changed by itself shows that the driver writes there."""
        tail = self.page.tail(queue)
        if tail != self._seen[queue]:
            self._seen[queue] = tail
            self._writes_page[queue] = True
        return tail

    def sleep(self, queue: int) -> bool:
        """Asks for a doorbell; returns whether the tail moved in the meantime."""
        before = self._seen[queue]
        self.page.sleep_device(queue)
        if self.tail(queue) == before:
            return False
        self.page.wake_device(queue)
        return True

    def interrupt(self, vector: int, queue: int | None, now_ns: int) -> None:
        """Raises a vector, if the queue's driver asked for one, or cannot ask because it does not write the page."""
        if queue is not None and not self.page.take_interrupt(queue) and self._writes_page[queue]:
            return
        self._outbox.interrupt(vector, now_ns)
        self.changed()

    def refuse(self, queue: int, iova: int, write: bool) -> None:
        """Says that DMA was refused."""
        self._outbox.refuse(queue, iova, write)
        self.changed()

    def link(self, up: bool, rate: int) -> None:
        """Says what state the link is in."""
        self._outbox.link(up, rate)
        self.changed()
