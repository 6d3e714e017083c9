"""What a refused call looks like to its caller."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from lamina_kit.rpc.status import rpc_error


async def expect_refused(call: Awaitable[Any], code: str, reason: str = "") -> str:
    """Awaits a call that must fail with `code` and `reason`; returns its message."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    error = rpc_error(failure.value)
    assert (failure.value.code().name, error.reason if reason else "") == (code, reason), str(error)
    assert error.message
    return str(error)
