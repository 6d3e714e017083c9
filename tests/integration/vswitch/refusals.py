"""How calls fail."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from lamina_kit.rpc import status


async def refusal(call: Any) -> tuple[str, str]:
    """Return code and reason with which a call fails, within ten seconds."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(10):
            await call
    return caught.value.code().name, status.rpc_error(caught.value).reason
