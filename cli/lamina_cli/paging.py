"""Reads every page of a list call."""

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
