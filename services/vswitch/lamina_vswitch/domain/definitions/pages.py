"""Pages of a sorted list."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument

T = TypeVar("T")

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
_TOKEN = re.compile(r"[a-z0-9.-]{1,600}")


def page(items: Sequence[T], key: Callable[[T], str], size: int, token: str) -> tuple[Sequence[T], str]:
    """Return one page of `items` and the token of the next page, empty at the end.

    `items` are sorted by `key`, which gives each its own text. A page starts behind the item that the token names,
    whether that item still exists or not, so a list that changes between two calls is neither repeated nor cut short.
    """
    with Checks() as check:
        check.that(size >= 0, "page_size", f"is {size}, below 0")
    if token and not _TOKEN.fullmatch(token):
        raise InvalidArgument(
            "page_token was not issued by this layer.",
            reason="PAGE_TOKEN_INVALID",
            next_step="Pass next_page_token of the last response, or nothing to start anew.",
        )
    start = bisect_right(items, token, key=key) if token else 0
    end = start + min(size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    return items[start:end], key(items[end - 1]) if end < len(items) else ""
