"""One method of a server, taken apart once for all its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Route:
    """A method's handler: its function, its kind and its two codecs.

    `kind` is (streams in, streams out), and None for a method that the server does not have.
    """

    __slots__ = ("behaviour", "deserialize", "kind", "method", "serialize")

    def __init__(self, method: str, handler: Any | None) -> None:
        self.method = method
        self.kind: tuple[bool, bool] | None = None
        self.behaviour: Any = None
        self.deserialize: Callable[[bytes], Any] = bytes
        self.serialize: Callable[[Any], bytes] = bytes
        if handler is None:
            return
        self.kind = (bool(handler.request_streaming), bool(handler.response_streaming))
        self.behaviour = getattr(handler, "_".join("stream" if streams else "unary" for streams in self.kind))
        self.deserialize = handler.request_deserializer or bytes
        self.serialize = handler.response_serializer or bytes
