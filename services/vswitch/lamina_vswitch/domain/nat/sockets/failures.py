"""What a failure of a host's socket means inside: why the packet is dropped, and the code of the ICMP error."""

from __future__ import annotations

from lamina_net.packets import icmp
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.sockets.host import HostError

FAILURES = {
    HostError.REFUSED: (DropReason.NO_ROUTE, icmp.PORT_UNREACHABLE),
    HostError.UNREACHABLE: (DropReason.NO_ROUTE, icmp.HOST_UNREACHABLE),
    HostError.RESET: (DropReason.NO_ROUTE, icmp.HOST_UNREACHABLE),
    HostError.FORBIDDEN: (DropReason.NAT_DESTINATION_FORBIDDEN, icmp.ADMINISTRATIVELY_PROHIBITED),
    HostError.IN_USE: (DropReason.NAT_PORTS_EXHAUSTED, icmp.HOST_UNREACHABLE),
    HostError.NO_ADDRESS: (DropReason.NO_ROUTE, icmp.HOST_UNREACHABLE),
    HostError.EXHAUSTED: (DropReason.NAT_PORTS_EXHAUSTED, icmp.HOST_UNREACHABLE),
}
