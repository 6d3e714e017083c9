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
_TOKEN = re.compile(r"[a-z0-9-]{1,63}")


def page(items: Sequence[T], key: Callable[[T], str], size: int, token: str) -> tuple[Sequence[T], str]:
    """Returns one page of `items`, which are sorted by `key`, and the next page's token, empty at the end.

    A page starts behind the item that the token names, whether it still exists or not.
    """
    with Checks() as check:
        check.range("page_size", size, 0, MAX_PAGE_SIZE)
    if token and not _TOKEN.fullmatch(token):
        raise InvalidArgument(
            "page_token was not issued by this layer.",
            reason="PAGE_TOKEN_INVALID",
            next_step="Pass next_page_token of the last response, or nothing to start anew.",
        )
    start = bisect_right(items, token, key=key) if token else 0
    end = start + (size or DEFAULT_PAGE_SIZE)
    return items[start:end], key(items[end - 1]) if end < len(items) else ""
