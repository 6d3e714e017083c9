"""Addresses of sockets: `unix:PATH`, `udp:ADDRESS:PORT`, `tcp:ADDRESS:PORT`; IPv6 addresses in brackets."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

MAX_PATH_BYTES = 107
"""Bytes of a UNIX socket's path, which the kernel bounds."""


class SocketAddress(NamedTuple):
    """Where a socket is: `family` is `unix`, `udp` or `tcp`; `host` a path or an IP address, `port` 0 to 65535."""

    family: str
    host: str
    port: int = 0

    @property
    def is_local(self) -> bool:
        """Whether nobody outside of this machine can reach it."""
        return self.family == "unix" or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.family == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.family}:{host}:{self.port}"


def parse_address(text: str, families: tuple[str, ...]) -> SocketAddress | str:
    """Return the address in a text, or what is wrong with it, as the end of a sentence. Never raises."""
    family, colon, rest = text.partition(":")
    if not colon or family not in families:
        return f"is not an address such as {' or '.join(_EXAMPLES[each] for each in families)}"
    if family == "unix":
        if not rest.startswith("/") or "\0" in rest:
            return "does not name an absolute path"
        if len(rest.encode(errors="surrogateescape")) > MAX_PATH_BYTES:
            return f"has a path of more than {MAX_PATH_BYTES} bytes"
        return SocketAddress(family, rest)
    host, colon, port = rest.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        return "does not end in a port, 0 to 65535"
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return "does not name an IP address; names are not looked up"
    if (found.version == 6) != (bare is not host) or "%" in bare:
        return "writes an IPv6 address without brackets, or something else in them"
    return SocketAddress(family, str(found), int(port))


_EXAMPLES = {"unix": "unix:/run/peer.sock", "udp": "udp:127.0.0.1:5000", "tcp": "tcp:127.0.0.1:5000"}
