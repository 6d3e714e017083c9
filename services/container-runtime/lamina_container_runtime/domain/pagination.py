"""Pages of lists: tokens that say where the next page begins.

A token is the key behind which the list goes on, so that what is added or removed meanwhile neither repeats nor skips
what was there all the time.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument

T = TypeVar("T")
DEFAULT_SIZE = 100
MAX_SIZE = 1000
_MARK = "after:"


def page(items: Sequence[T], key: Callable[[T], str], size: int, token: str) -> tuple[list[T], str]:
    """Returns one page of `items`, which are in the order of their keys, and the token of the next one.

    `InvalidArgument`: a page size outside 0 to 1000, or `PAGE_TOKEN_INVALID`.
    """
    with Checks() as check:
        check.range("page_size", size, 0, MAX_SIZE)
    after = _decode(token) if token else ""
    rest = [item for item in items if not token or key(item) > after]
    chosen = rest[: size or DEFAULT_SIZE]
    return chosen, _encode(key(chosen[-1])) if len(rest) > len(chosen) else ""


def _encode(key: str) -> str:
    return base64.urlsafe_b64encode((_MARK + key).encode()).decode()


def _decode(token: str) -> str:
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not text.startswith(_MARK):
        raise InvalidArgument(
            "The page token was not issued by this service.",
            reason="PAGE_TOKEN_INVALID",
            next_step="Begin the list anew, without a token.",
        )
    return text.removeprefix(_MARK)
