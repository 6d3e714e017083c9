"""When a NIC that fails is tried again, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError, Unavailable
from lamina_kit.virtual.clock import VirtualClock
from lamina_kit.virtual.loop import VirtualLoop
from lamina_vswitch.io.nic.driver import HardwareBelow, NicDriver, NicWish
from lamina_vswitch.io.nic.port import NicPort

MS = 10**6
FAULT = Unavailable("It stands.", reason="NIC_DMA_FAULT", next_step="None.")


class Failing:
    """A driver that fails a while after it was opened."""

    def __init__(self, clock: Clock, works_ns: int, error: Exception) -> None:
        self.pairs: list[Any] = []
        self._clock, self._works_ns, self._error = clock, works_ns, error

    async def serve(self) -> None:
        """Fail in the end."""
        await self._clock.sleep_ns(self._works_ns)
        raise self._error

    async def finish(self) -> None:
        """End."""

    async def close(self) -> None:
        """Nothing is to be given back."""


def history(
    monkeypatch: pytest.MonkeyPatch, works_ns: Callable[[int], int], until_ns: int, error: Exception = FAULT
) -> tuple[list[int], int]:
    """Return when a NIC was opened, in milliseconds, and how many failures were told."""
    loop = VirtualLoop(1, strict=True)
    clock = VirtualClock(loop)
    opened: list[int] = []
    failures: list[LaminaError] = []

    async def take(*_: Any) -> NicDriver:
        opened.append(clock.now_ns() // MS)
        return cast("NicDriver", Failing(clock, works_ns(len(opened)), error))

    async def run() -> None:
        port = NicPort(
            cast("HardwareBelow", None), clock, lambda: NicWish("hosts/h1/nics/nic0", 1500, True),
            lambda _port, _up: None, failures.append,
        )  # fmt: skip
        await port.open()
        port.start(cast("Any", None))
        await clock.sleep_ns(until_ns)
        await port.close()

    monkeypatch.setattr(NicDriver, "open", take)
    loop.run(run())
    return opened, len(failures)


def test_a_nic_that_never_works_is_tried_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that opens and fails at once is told once, and tried after 0.2, 1, then every 5 seconds."""
    assert history(monkeypatch, lambda _: 0, 12_000 * MS) == ([0, 200, 1200, 6200, 11200], 1)


def test_a_nic_that_worked_is_tried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure after a minute of work is a new one: told again, and the NIC is tried soon."""
    found = history(monkeypatch, lambda count: 60_000 * MS if count == 2 else 0, 62_000 * MS)
    assert found == ([0, 200, 60_400, 61_400], 2)


def test_a_defect_ends_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no driver should raise is told like a failure, and the NIC is opened again."""
    assert history(monkeypatch, lambda _: 0, 1_000 * MS, KeyError(7)) == ([0, 200], 1)


async def test_what_cannot_be_mapped_is_an_error_like_any_other() -> None:
    """Memory that this process cannot open is `HARDWARE_UNREACHABLE`, which does not end the trying."""

    class Nowhere:
        """Hardware whose answers no file system holds."""

        def __getattr__(self, name: str) -> Any:
            raise FileNotFoundError("/nowhere")

    wish = NicWish("hosts/h1/nics/nic0", 1500, True)
    with pytest.raises(LaminaError) as caught:
        await NicDriver.open(cast("HardwareBelow", Nowhere()), wish, cast("Any", None))
    assert caught.value.reason == "HARDWARE_UNREACHABLE"


async def test_nothing_is_rung_after_the_end() -> None:
    """A frame that comes after `finish` cuts no call: hardware ends it when it has reset the NIC."""
    call = Call()
    driver = NicDriver(cast("HardwareBelow", None), NicWish("hosts/h1/nics/nic0", 1500, True), cast("Any", None))
    driver._call = call
    await driver.finish()
    assert not await driver._write(cast("Any", None))
    assert (call.half_closed, call.cancelled) == (True, False)


class Call:
    """A stream, as gRPC has it: whoever writes behind its end is told so."""

    def __init__(self) -> None:
        self.half_closed = self.cancelled = False

    def done(self) -> bool:
        """Tell that it goes on."""
        return False

    async def done_writing(self) -> None:
        """Take no more."""
        self.half_closed = True

    async def write(self, _message: Any) -> None:
        """Refuse what comes late."""
        raise asyncio.InvalidStateError("RPC is half closed")

    def cancel(self) -> None:
        """End it at once."""
        self.cancelled = True
