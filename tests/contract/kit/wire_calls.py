"""What the suites of channels call with: messages, waits that end, and the errors of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

SHORT_S = 0.05
"""A deadline that is meant to pass."""
LONG_S = 5.0
"""A deadline that is not."""
WITHOUT_GATEWAY = pytest.mark.parametrize("wire", ["local", "unix", "tcp"], indirect=True)
"""Behind a gateway deadlines are kept outside, and a reader is cut, not waited for (`tests/integration/gateway`)."""


def text(value: str) -> StringValue:
    """Returns a message."""
    return StringValue(value=value)


async def texts(*values: str) -> AsyncIterator[StringValue]:
    """Yields messages."""
    for value in values:
        yield text(value)


async def within(event: asyncio.Event) -> None:
    """Returns when the event is set; fails the test when that takes too long."""
    async with asyncio.timeout(LONG_S):
        await event.wait()


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Returns the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def awaited(call: Any) -> Any:
    """Returns what a call returns."""
    return await call
