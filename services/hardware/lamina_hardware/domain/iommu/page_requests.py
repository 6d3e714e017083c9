"""Page requests of one DMA domain: what devices wait for, and what its owner answers. Pure.

    transfer ── page absent ──► ask ──► open ── answer, or 1 s, or the end of the stream ──► resolved
                                         │                                                     │
                                         └── the transfer waits                                └── it tries once more

A transfer that tries again and still finds no page, or whose owner said no, is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lamina_hardware.domain.devices.device import Timer
from lamina_kit.errors import FailedPrecondition

TIMEOUT_NS = 10**9
MAX_IN_MESSAGE = 1024

Place = tuple[str, int, bool]
"""Device, DMA address of the page, whether it is to be written."""


@dataclass(slots=True, eq=False)
class PageRequest:
    """One page that a device waits for."""

    sequence: int
    place: Place
    traceparent: str = ""
    waiters: list[Callable[[], None]] = field(default_factory=list)
    timer: Timer | None = None


class PageRequests:
    """The requests of one domain. `changed` is called when there is something to send, or the server was cut off."""

    def __init__(self) -> None:
        self.served = False
        self.changed: Callable[[], None] = lambda: None
        self._issued = 0
        self._outbox: deque[PageRequest] = deque()
        self._open: dict[Place, PageRequest] = {}
        self._resolved: dict[Place, bool] = {}

    def find(self, place: Place) -> PageRequest | None:
        """Returns the request for a page that is open."""
        return self._open.get(place)

    def ask(self, place: Place, traceparent: str = "") -> PageRequest:
        """Opens a request; it is sent with the next message."""
        self._issued += 1
        request = PageRequest(self._issued, place, traceparent)
        self._open[place] = request
        self._outbox.append(request)
        self.changed()
        return request

    def take(self) -> list[PageRequest]:
        """Returns the requests that were not sent yet, at most 1024, oldest first."""
        taken: list[PageRequest] = []
        while self._outbox and len(taken) < MAX_IN_MESSAGE:
            request = self._outbox.popleft()
            if self._open.get(request.place) is request:
                taken.append(request)
        return taken

    def answer(self, sequence: int, present: bool) -> None:
        """Takes an answer.

        One that comes late, or twice, changes nothing. Raises `FailedPrecondition` `QUESTION_UNKNOWN` for a request
        that never was.
        """
        if not 0 < sequence <= self._issued:
            raise FailedPrecondition(
                f"No page request of this domain has the sequence {sequence}.",
                reason="QUESTION_UNKNOWN",
                next_step="Answer with the sequences of the requests.",
                sequence=sequence,
            )
        for request in self._open.values():
            if request.sequence == sequence:
                self.resolve(request, present)
                return

    def resolve(self, request: PageRequest, present: bool = False) -> None:
        """Ends a request; who waits for it tries again."""
        if self._open.get(request.place) is not request:
            return
        del self._open[request.place]
        self._resolved[request.place] = present
        if request.timer is not None:
            request.timer.cancel()
        for waiter in request.waiters:
            waiter()
        request.waiters.clear()

    def take_resolved(self, place: Place) -> bool | None:
        """Returns what became of the last request for a page, None when there was none, and forgets it."""
        return self._resolved.pop(place, None) if self._resolved else None

    def resolve_all(self, device: str = "") -> None:
        """Ends all open requests, or those of one device, and forgets which were resolved."""
        for request in list(self._open.values()):
            if not device or request.place[0] == device:
                self.resolve(request)
        for place in [place for place in self._resolved if not device or place[0] == device]:
            del self._resolved[place]
