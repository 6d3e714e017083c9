"""Where runtimes are reached: an address becomes a runtime."""

from __future__ import annotations

from collections.abc import Mapping

from lamina_kit.clock import Clock
from lamina_kit.errors import InvalidArgument
from lamina_kit.faults.channel import FaultyChannel, Link
from lamina_kit.rpc.channel import Channel, check_target, connect
from lamina_kit.security.transport import PLAIN, Security, is_local
from lamina_orchestrator.io.runtimes.client import RuntimeClient
from lamina_orchestrator.io.runtimes.runtime import Runtime


class ChannelConnector:
    """Makes runtimes from the names of channels that this process was given, from UNIX sockets, and from loopback.

    Addresses beyond this host are refused unless the process has certificates, or a network that is said to be private.
    """

    def __init__(self, channels: Mapping[str, Channel], clock: Clock, security: Security = PLAIN) -> None:
        self._channels = channels
        self._clock = clock
        self._security = security
        self._links: dict[str, Link] = {}

    def link(self, address: str) -> Link:
        """Returns the link to the runtime at an address, which a fault may cut."""
        if address not in self._links:
            self._links[address] = Link(self._clock)
        return self._links[address]

    def check(self, address: str) -> None:
        """Raises InvalidArgument `ADDRESS_UNSUPPORTED`, `ADDRESS_INVALID` or `SOCKET_PATH_TOO_LONG`."""
        if address in self._channels:
            return
        check_target(address)
        if self._security == PLAIN and not is_local(address):
            known = ", ".join(sorted(self._channels)) or "none"
            raise InvalidArgument(
                f"The runtime address {address[:100]} is neither a known channel, a UNIX socket nor loopback.",
                reason="ADDRESS_UNSUPPORTED",
                next_step=f"Give unix:/PATH, 127.0.0.1:PORT, a known channel ({known}), or this process --tls-dir.",
            )

    def __call__(self, address: str) -> Runtime:
        """The runtime of an address."""
        self.check(address)
        channel = self._channels.get(address)
        link = self.link(address)
        if channel is not None:
            return RuntimeClient(FaultyChannel(channel, link), self._clock)
        return RuntimeClient(FaultyChannel(connect(address, security=self._security), link), self._clock, owned=True)
