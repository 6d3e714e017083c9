"""Memory that fails: the MMU hears of it from the hardware, and takes it out of use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lamina.hardware.v1 import hardware_pb2_grpc
from lamina.hardware.v1 import topology_pb2 as hw
from lamina.mmu.v1 import mmu_pb2 as pb
from tests.contract.mmu.stack import PAGE, READ, FakeHardware, Outcome, Stack

from lamina_kit.errors import OutOfRange

AT = 0x40_0000
pytestmark = pytest.mark.inside


class Hosts(hardware_pb2_grpc.HostsServicer):
    """Tells what tests put in; `cut` breaks the streams, `forget` refuses to go on after a number."""

    def __init__(self) -> None:
        self.events: list[hw.MachineEvent] = []
        self.asked: list[int] = []
        self.open = 0
        self._news = asyncio.Event()
        self._cut = False
        self._forgets = False

    def fail(self, frame: int, *, corrected: bool = False, offset: int = 8, size: int = 1) -> None:
        """Tells an error of memory."""
        error = hw.MemoryError(address=frame * PAGE + offset, size_bytes=size, corrected=corrected, count=1)
        self.events.append(hw.MachineEvent(sequence=len(self.events) + 1, memory=error))
        self._news.set()

    def cut(self, *, forget: bool = False) -> None:
        """Breaks the stream that is open; `forget`: the next that asks to go on is refused."""
        self._cut, self._forgets = True, forget
        self._news.set()

    async def WatchMachine(self, request: hw.WatchMachineRequest, context: Any) -> AsyncIterator[hw.MachineEvent]:
        """Tells what came after a number, `current`, and news until it is cut."""
        self.asked.append(request.after_sequence)
        if request.after_sequence and self._forgets:
            self._forgets = False
            raise OutOfRange("forgotten", reason="EVENTS_FORGOTTEN")
        told = request.after_sequence
        self.open += 1
        try:
            yield hw.MachineEvent(sequence=len(self.events), current=hw.MachineEvent.Current())
            while True:
                for event in self.events[told:]:
                    yield event
                told = len(self.events)
                self._news.clear()
                await self._news.wait()
                if self._cut:
                    self._cut = False
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the hardware is gone")
        finally:
            self.open -= 1


class TellingHardware(FakeHardware):
    """The stand-in, with `Hosts`."""

    service_names = (*FakeHardware.service_names, "lamina.hardware.v1.Hosts")

    def register(self, server: Any) -> None:
        """Adds the third servicer."""
        super().register(server)
        self.hosts = Hosts()
        hardware_pb2_grpc.add_HostsServicer_to_server(self.hosts, server)


def telling(stack: Stack) -> Hosts:
    """Returns what tells."""
    assert isinstance(stack.hardware, TellingHardware)
    return stack.hardware.hosts


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the stand-in for the hardware one that tells."""
    monkeypatch.setattr("tests.contract.mmu.stack.FakeHardware", TellingHardware)


async def page(stack: Stack, address: int = AT) -> tuple[pb.Space, int]:
    """Returns a space with one written page, and its frame."""
    space = await stack.space()
    await stack.map(space, address, 1)
    await stack.write(space, address, b"content")
    frame = stack.walk(space, address)
    assert frame is not None
    return space, frame


def offlined(stack: Stack) -> list[tuple[str, str]]:
    """Returns which frames went out of use, and what became of each, in order."""
    events = [one for one in stack.layer.events.list(limit=1000) if one.event == "frame.offlined"]
    return [(one.object.rpartition("/")[2], dict(one.inputs)["fate"]) for one in events]


async def test_a_page_in_failed_memory_is_lost_to_its_space(stack: Stack, eventually: Any) -> None:
    """Its next access is a bus error, the frame is out of use, and the log says why; other pages live."""
    space, frame = await page(stack)
    other, _ = await page(stack)
    telling(stack).fail(frame)
    await eventually(lambda: offlined(stack), "the frame goes out of use")
    assert offlined(stack) == [(str(frame), "LOST")]
    answer = await stack.fault(space, AT, READ)
    assert (answer.outcome, answer.refusal_reason) == (Outcome.OUTCOME_BUS_ERROR, "PAGE_LOST")
    assert (await stack.frames.GetFrame(pb.GetFrameRequest(frame=frame))).use == pb.Frame.USE_OFFLINE
    assert await stack.read(other, AT, 7) == b"content"


async def test_corrected_errors_and_foreign_memory_change_nothing(stack: Stack, eventually: Any) -> None:
    """The bytes are as they were; memory beyond what the MMU has is not its own."""
    space, frame = await page(stack)
    telling(stack).fail(frame, corrected=True)
    telling(stack).fail(4096)
    telling(stack).fail(3000, offset=PAGE - 1, size=2)
    await eventually(lambda: len(offlined(stack)) == 2, "the free frames go out of use")
    assert offlined(stack) == [("3000", "OFFLINE"), ("3001", "OFFLINE")]
    assert await stack.read(space, AT, 7) == b"content"


async def test_a_stream_that_breaks_goes_on_after_what_was_told(stack: Stack, eventually: Any) -> None:
    """What was told meanwhile is acted upon once; when it is forgotten, the present state is asked for."""
    hosts = telling(stack)
    hosts.fail(1000)
    await eventually(lambda: len(offlined(stack)) == 1, "the first")
    hosts.cut()
    await eventually(lambda: hosts.open == 0, "the stream breaks")
    hosts.fail(1001)
    await eventually(lambda: len(offlined(stack)) == 2, "the second")
    assert hosts.asked == [0, 1]
    hosts.cut(forget=True)
    await eventually(lambda: hosts.asked == [0, 1, 2, 0], "it begins anew")
    hosts.fail(1002)
    await eventually(lambda: ("1002", "OFFLINE") in offlined(stack), "the third")


async def test_a_shootdown_that_is_lost_is_made_again(stack: Stack, eventually: Any) -> None:
    """While the hardware is away the frame stays as it is; once it is back, the same error is acted upon."""
    space, frame = await page(stack)
    stack.hardware.cpu.failures = 7
    telling(stack).fail(frame)
    await eventually(lambda: offlined(stack), "the frame goes out of use")
    assert offlined(stack) == [(str(frame), "LOST")] and telling(stack).asked == [0, 0]
    assert [one.event for one in stack.layer.events.list(limit=1000)].count("offlining.failed") == 1
    assert (await stack.fault(space, AT, READ)).refusal_reason == "PAGE_LOST"


async def test_the_watch_ends_with_the_service(stack: Stack, eventually: Any) -> None:
    """Nobody watches a machine for an MMU that is gone."""
    hosts = telling(stack)
    await eventually(lambda: hosts.open == 1, "it watches")
    await stack.service.stop()
    await eventually(lambda: hosts.open == 0, "it is gone")
    assert hosts.asked == [0]
