"""Pages that a device meets before they are there: asked for, brought in, or refused in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import iommu_pb2 as pb
from tests.contract.hardware.device_bench import (  # noqa: F401 (variant is a fixture)
    DMA0,
    PAGE,
    Driver,
    Owner,
    Tables,
    reason,
    refusal,
    variant,
)

pytestmark = pytest.mark.inside  # sessions, domains and the log of faults of a machine that nobody used before

IOVA = 0x7000_0000
Request = pb.ServePageRequestsRequest


class Pager:
    """The owner of a domain, who serves its page requests."""

    def __init__(self, tables: Tables, domain: pb.DmaDomain) -> None:
        self.tables = tables
        self.domain = domain
        self.stream: Any = tables.stub.ServePageRequests()

    async def open(self) -> Pager:
        """Opens the stream."""
        await self.stream.write(Request(open=self.domain.handle))
        assert not (await self.stream.read()).requests
        return self

    async def asked(self) -> Any:
        """Returns the one request of the next message."""
        (request,) = (await self.stream.read()).requests
        return request

    async def answer(self, sequence: int, present: bool = True) -> None:
        """Answers a request."""
        answer = pb.PageAnswers.PageAnswer(sequence=sequence, present=present)
        await self.stream.write(Request(answers=pb.PageAnswers(answers=[answer])))


@pytest.fixture
async def tables(bench: Any) -> AsyncIterator[Tables]:
    """Returns the domains of a machine whose dma0 is driven."""
    async with Owner(bench) as owner, Driver(bench, owner):
        yield Tables(bench, owner)


async def pager(tables: Tables) -> Pager:
    """Returns the pager of a domain with dma0 attached and frames for tables."""
    domain = await tables.create(page_requests=True)
    await tables.give(domain)
    await tables.attach(domain)
    return await Pager(tables, domain).open()


async def test_a_page_is_brought_in(bench: Any, tables: Tables) -> None:
    """A transfer waits for each page of it that is absent, and then happens as a whole."""
    owner = await pager(tables)
    pa = bench.frames(2)
    waiting = asyncio.ensure_future(tables.write(IOVA + PAGE - 1, b"ab"))
    for number in range(2):
        request = await owner.asked()
        assert (request.iova, request.write, request.device) == (IOVA + number * PAGE, True, DMA0)
        assert not waiting.done()
        assert bench.bus.read(pa + PAGE - 1, 2) == bytes(2)
        await tables.map(owner.domain, (request.iova, pa + number * PAGE, PAGE))
        await owner.answer(request.sequence)
    await waiting
    assert bench.bus.read(pa + PAGE - 1, 2) == b"ab"
    assert (await tables.get(owner.domain)).faults == 0


async def test_a_right_is_asked_for(bench: Any, tables: Tables) -> None:
    """A page that may be read and not be written is asked for by a write."""
    owner = await pager(tables)
    pa = bench.frames()
    mapping = pb.DmaMapping(iova=IOVA, address=pa, size_bytes=PAGE, read=True)
    await tables.stub.MapDma(pb.MapDmaRequest(handle=owner.domain.handle, mappings=[mapping]))
    await tables.read(IOVA, 1)
    waiting = asyncio.ensure_future(tables.write(IOVA, b"x"))
    request = await owner.asked()
    await tables.unmap(owner.domain, IOVA)
    await tables.map(owner.domain, (IOVA, pa, PAGE))
    await owner.answer(request.sequence)
    await waiting
    assert bench.bus.read(pa, 1) == b"x"


@pytest.mark.parametrize("present", [True, False])
async def test_a_page_that_does_not_come(tables: Tables, present: bool) -> None:
    """An owner who says no, or yes without doing it, makes the transfer fault; the next one asks again."""
    owner = await pager(tables)
    for _ in range(2):
        waiting = asyncio.ensure_future(refusal(tables.read(IOVA, 1)))
        await owner.answer((await owner.asked()).sequence, present)
        error = await waiting
        assert (error.reason, error.metadata["outcome"]) == ("DMA_FAULT", "PAGE_REQUEST_FAILED")
    assert [fault.outcome for fault in await tables.faults()] == [pb.DMA_OUTCOME_PAGE_REQUEST_FAILED] * 2


async def test_an_owner_who_is_silent(tables: Tables) -> None:
    """After a second of the stack's time the transfer faults; an answer that comes later changes nothing."""
    owner = await pager(tables)
    clock = tables.bench.environment.clock
    began = clock.now_ns()
    waiting = asyncio.ensure_future(refusal(tables.read(IOVA, 1)))
    request = await owner.asked()
    assert (await waiting).metadata["outcome"] == "PAGE_REQUEST_FAILED"
    assert clock.now_ns() - began >= 1_000_000_000
    await owner.answer(request.sequence)
    waiting = asyncio.ensure_future(refusal(tables.read(IOVA, 1)))
    await owner.answer((await owner.asked()).sequence, False)
    await waiting


async def test_nobody_serves(tables: Tables) -> None:
    """Without a stream, and when it ends, transfers fault at once."""
    domain = await tables.create(page_requests=True)
    await tables.attach(domain)
    assert (await refusal(tables.read(IOVA, 1))).metadata["outcome"] == "PAGE_REQUEST_FAILED"
    owner = await Pager(tables, domain).open()
    waiting = asyncio.ensure_future(refusal(tables.read(IOVA, 1)))
    await owner.asked()
    owner.stream.cancel()
    assert (await waiting).metadata["outcome"] == "PAGE_REQUEST_FAILED"


async def test_a_detach_ends_the_waiting(tables: Tables) -> None:
    """A transfer that waits when its device is detached is refused, and the request with it."""
    owner = await pager(tables)
    waiting = asyncio.ensure_future(refusal(tables.read(IOVA, 1)))
    request = await owner.asked()
    await tables.detach()
    assert (await waiting).metadata["outcome"] == "NO_DOMAIN"
    await owner.answer(request.sequence)


async def test_what_ends_the_stream(tables: Tables) -> None:
    """A wrong begin, a second open, an answer to nothing, too many answers, a stale handle, the domain's deletion."""
    owner = await pager(tables)
    second = Pager(tables, owner.domain)
    await second.stream.write(Request(open=owner.domain.handle))
    assert await reason(second.stream.read()) == ("ALREADY_EXISTS", "PAGE_REQUESTS_SERVED")
    await owner.answer(77)
    assert await reason(owner.stream.read()) == ("FAILED_PRECONDITION", "QUESTION_UNKNOWN")
    owner = await Pager(tables, owner.domain).open()
    await owner.stream.write(Request(open=owner.domain.handle))
    assert await reason(owner.stream.read()) == ("FAILED_PRECONDITION", "PAGE_REQUESTS_NOT_OPENED")
    owner = await Pager(tables, owner.domain).open()
    many = pb.PageAnswers(answers=[pb.PageAnswers.PageAnswer(sequence=1)] * 1025)
    await owner.stream.write(Request(answers=many))
    assert await reason(owner.stream.read()) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    early = Pager(tables, owner.domain)
    await early.answer(1)
    assert await reason(early.stream.read()) == ("FAILED_PRECONDITION", "PAGE_REQUESTS_NOT_OPENED")
    stale = tables.stub.ServePageRequests()
    await stale.write(Request(open=handle_pb2.Handle(id=9, generation=9)))
    assert await reason(stale.read()) == ("FAILED_PRECONDITION", "HANDLE_STALE")
    owner = await Pager(tables, owner.domain).open()
    await tables.stub.DeleteDmaDomain(pb.DeleteDmaDomainRequest(handle=owner.domain.handle))
    assert await reason(owner.stream.read()) == ("FAILED_PRECONDITION", "HANDLE_STALE")
