"""Reads every page of a list call, or as much of a stream as is wanted."""

from __future__ import annotations

from typing import Any


async def collect(call: Any, request: Any, field: str) -> list[Any]:
    """Returns the items of all pages of `call`, in the order in which the layer lists them."""
    items: list[Any] = []
    while True:
        response = await call(request)
        items.extend(getattr(response, field))
        if not response.next_page_token:
            return items
        request.page_token = response.next_page_token


async def first(call: Any, field: str, count: int) -> list[Any]:
    """Returns the first `count` items of a stream of batches; fewer when it ends before. The stream is ended."""
    items: list[Any] = []
    async for batch in call:
        items.extend(getattr(batch, field))
        if len(items) >= count:
            call.cancel()
            break
    return items[:count]
