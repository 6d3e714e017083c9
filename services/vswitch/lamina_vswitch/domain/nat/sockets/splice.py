"""A TCP flow through a host socket: the guest's connection ends in the gateway's own TCP, and a host's goes on.

The guest's SYN waits until the host's connection is made, so that "refused" and "unreachable" reach the guest as what
they are. From then on each side is read only when the other has room: a full socket closes the guest's window, a full
window leaves bytes in the socket.
"""

from __future__ import annotations

from typing import Protocol

from lamina_net.tcp.interface import Event, EventKind, Handle, Refused
from lamina_net.tcp.layer import TcpLayer
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.entry import Endpoint, Entry
from lamina_vswitch.domain.nat.packets.packet import RST, SYN, View
from lamina_vswitch.domain.nat.sockets.host import HostError, HostStream

CHUNK_BYTES = 1 << 18


class Inside(Protocol):
    """What a splice needs of the gateway's TCP."""

    layer: TcpLayer

    def segment_came(self, packet: bytes, view: View, now_ns: int, *, verify: bool = True) -> None:
        """Give a segment of the inside to the gateway's TCP."""

    def accept_at(self, port: int) -> bool:
        """Let the gateway's TCP take connections at a port, once more. False: it takes no more."""

    def refuse(self, packet: bytes, view: View, error: HostError, now_ns: int) -> None:
        """Tell the inside that its SYN found nobody."""

    def settle(self, now_ns: int) -> None:
        """Send what TCP has to send, and tell its users what happened."""


class Splice:
    """One TCP flow. `entry` and `stream` are set before anything happens; `handle` is the guest's connection.

    `listening`: the gateway's TCP was asked to take the guest's SYN. `over`: the host's side has ended.
    """

    entry: Entry
    stream: HostStream

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self.handle: Handle | None = None
        self.listening = False
        self._syn: tuple[bytes, View] | None = None
        self._pending = b""
        self._writing = False
        self._host_done = False
        self._guest_done = False
        self.over = False

    # From the guest

    def from_inside(self, packet: bytes, view: View, now_ns: int) -> DropReason | None:
        """Take a segment; before the host's connection is made only the newest SYN counts."""
        if self.listening or self.handle is not None:
            self._inside.segment_came(packet, view, now_ns)
        elif self.over:
            return DropReason.NAT_STATE
        elif view.flags & RST:
            self._end(abort=True)
        elif view.flags & SYN:
            self._syn = (packet, view)
        return None

    def happened(self, event: Event, now_ns: int) -> None:
        """Learn what changed for the guest's connection."""
        if event.kind is EventKind.CONNECTED:
            self.stream.read()
        elif event.kind is EventKind.READABLE:
            self._pull(now_ns)
        elif event.kind is EventKind.WRITABLE:
            self._push(now_ns)
        elif event.kind is EventKind.ERROR:
            self._inside.layer.close(event.handle, now_ns)
            self._end(abort=True)

    def accepted(self, handle: Handle, now_ns: int) -> None:
        """Learn that the guest's handshake is done; the host may have left meanwhile."""
        self.handle = handle
        if self.over:
            self._inside.layer.abort(handle, now_ns)
            return
        self.stream.read()
        self._pull(now_ns)

    # From the host

    def connected(self, now_ns: int) -> None:
        """Answer the guest's SYN, now that there is somebody to talk to."""
        if self.over or self._syn is None:
            return
        packet, view = self._syn
        if not self._inside.accept_at(view.key.dst_port):
            self._inside.refuse(packet, view, HostError.EXHAUSTED, now_ns)
            self._end(abort=True)
            return
        self.listening = True
        self._inside.segment_came(packet, view, now_ns)
        self._inside.settle(now_ns)

    def failed(self, error: HostError, now_ns: int) -> None:
        """Tell the guest in its own terms."""
        if self.over:
            return
        if self.handle is not None:
            self._inside.layer.abort(self.handle, now_ns)
        elif self._syn is not None:
            self._inside.refuse(*self._syn, error, now_ns)
        self._end(abort=True)
        self._inside.settle(now_ns)

    def received(self, data: bytes, now_ns: int) -> None:
        """Pass bytes of the host on to the guest, or its end."""
        if self.over:
            return
        self._pending = data
        self._host_done = not data
        self._push(now_ns)
        self._inside.settle(now_ns)

    def written(self, now_ns: int) -> None:
        """Go on reading from the guest."""
        self._writing = False
        if not self.over:
            self._pull(now_ns)
            self._inside.settle(now_ns)

    def ended(self, now_ns: int) -> None:
        """End both sides with a reset, if they have not ended."""
        if self.over:
            return
        if self.handle is not None:
            self._inside.layer.abort(self.handle, now_ns)
        self.over = True
        self.stream.abort()

    @property
    def local(self) -> Endpoint:
        """Address and port of the host's socket."""
        return self.stream.local

    # Both ways

    def _pull(self, now_ns: int) -> None:
        """Move bytes from the guest to the host while it takes them."""
        while self.handle is not None and not (self._writing or self._guest_done or self.over):
            data = self._inside.layer.recv(self.handle, CHUNK_BYTES, now_ns)
            if isinstance(data, Refused):
                return
            if data:
                self._writing = not self.stream.write(data)
                continue
            self._guest_done = True
            self.stream.finish()
            self._end_if_done(now_ns)

    def _push(self, now_ns: int) -> None:
        """Move bytes from the host to the guest while it takes them, then ask for more, or pass the end on."""
        if self.handle is None or self.over:
            return
        if self._pending:
            taken = self._inside.layer.send(self.handle, self._pending, now_ns)
            if isinstance(taken, Refused):
                return
            self._pending = self._pending[taken:]
            if self._pending:
                return
        if self._host_done:
            self._inside.layer.shutdown(self.handle, now_ns)
            self._end_if_done(now_ns)
        else:
            self.stream.read()

    def _end_if_done(self, now_ns: int) -> None:
        if self._guest_done and self._host_done and not self._pending and self.handle is not None:
            self._inside.layer.close(self.handle, now_ns)
            self._end(abort=False)

    def _end(self, *, abort: bool) -> None:
        self.over = True
        if abort:
            self.stream.abort()
        else:
            self.stream.close()
