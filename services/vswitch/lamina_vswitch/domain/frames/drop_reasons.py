"""Why frames go nowhere. Every frame that enters a switch is delivered, or counted under one of these."""

from __future__ import annotations

import enum


class DropReason(enum.IntEnum):
    """Reason for a drop; the numbers are those of the contract's enum of the same name."""

    RUNT = 1
    OVERSIZE = 2
    VLAN_TRUNCATED = 3
    VLAN_MISMATCH = 4
    LINK_DOWN = 5
    SOURCE_INVALID = 6
    LINK_LOCAL = 7
    SAME_PORT = 8
    NO_DESTINATION = 9
    DESTINATION_DOWN = 10
    QUEUE_FULL = 11
    PORT_SHUT = 12
    FORGED_TRANSMIT = 13
    MAC_CHANGED = 14
    MAC_LIMIT = 15
    DHCP_GUARD = 16
    ROUTER_GUARD = 17
    SOURCE_GUARD = 18
    STORM = 19
    SHAPED = 20
    ISOLATED = 21
    MIRROR_PORT = 22
    LOOP_PROBE = 23
    TEAMING_STANDBY = 24
    OFFLOAD_INVALID = 25
    HOLD_FULL = 26
    DISCARDED = 27
    HOST_ONLY = 28
    IP_MALFORMED = 29
    CHECKSUM_BAD = 30
    TTL_EXPIRED = 31
    NO_ROUTE = 32
    NEIGHBOR_UNREACHABLE = 33
    FRAGMENT_NEEDED = 34
    FRAGMENT_OVERLAP = 35
    FRAGMENT_TIMEOUT = 36
    NAT_TABLE_FULL = 37
    NAT_ADDRESS_LIMIT = 38
    NAT_PORTS_EXHAUSTED = 39
    NAT_NO_ENTRY = 40
    NAT_STATE = 41
    NAT_DESTINATION_FORBIDDEN = 42
    PROTOCOL_UNSUPPORTED = 43
    DHCP_EXHAUSTED = 44
    TUNNEL_MALFORMED = 45
    TUNNEL_VNI_UNKNOWN = 46
    TUNNEL_PEER_UNKNOWN = 47
    NO_BACKEND = 48
    FAULT = 49
    KERNEL = 50


EXPLANATION = {
    DropReason.RUNT: "shorter than an Ethernet header",
    DropReason.OVERSIZE: "longer than the MTU of the switch allows",
    DropReason.VLAN_TRUNCATED: "announces an 802.1Q tag and ends before it does",
    DropReason.VLAN_MISMATCH: "tagged with a VLAN that the port is not in",
    DropReason.LINK_DOWN: "came from a port that is not up",
    DropReason.SOURCE_INVALID: "source address is zero or a group address",
    DropReason.LINK_LOCAL: "destination is a link-local address, which bridges do not forward",
    DropReason.SAME_PORT: "destination is behind the port that the frame came from, or behind another uplink",
    DropReason.NO_DESTINATION: "no other port of the VLAN is up",
    DropReason.DESTINATION_DOWN: "static entry names a port that is not up or not in the VLAN",
    DropReason.QUEUE_FULL: "queue of the receiving port is full",
    DropReason.PORT_SHUT: "came from a port that loop detection, storm control or the address limit shut",
    DropReason.FORGED_TRANSMIT: "source is not the address that the device uses",
    DropReason.MAC_CHANGED: "receiving device uses another address than it was given",
    DropReason.MAC_LIMIT: "source is one address more than the port may have",
    DropReason.DHCP_GUARD: "came from a DHCP server behind a port that may have none",
    DropReason.ROUTER_GUARD: "IPv6 router advertisement from a port that may send none",
    DropReason.SOURCE_GUARD: "IP source is an address that the port was not given",
    DropReason.STORM: "above the rate that storm control allows",
    DropReason.SHAPED: "the queue in which frames wait for the shaper was full, or ended while they waited",
    DropReason.ISOLATED: "from one isolated port to another",
    DropReason.TEAMING_STANDBY: "came in at an uplink that nobody in its VLAN uses now; another one counts",
    DropReason.OFFLOAD_INVALID: "offload header does not fit the frame",
    DropReason.HOLD_FULL: "port is held, and holds as many frames as it may",
    DropReason.DISCARDED: "was held for a device, and discarded when the hold ended",
    DropReason.MIRROR_PORT: "came from a port that only receives copies of a mirror",
    DropReason.LOOP_PROBE: "probe of loop detection, which did its work",
    DropReason.HOST_ONLY: "would leave a host-only network",
    DropReason.IP_MALFORMED: "IP header is cut, too long for its frame or inconsistent",
    DropReason.CHECKSUM_BAD: "IP or ICMP checksum is wrong",
    DropReason.TTL_EXPIRED: "time to live ended at the router",
    DropReason.NO_ROUTE: "the router has no way to the destination",
    DropReason.NEIGHBOR_UNREACHABLE: "nobody answered the router's ARP requests",
    DropReason.FRAGMENT_NEEDED: "too long for the way on, and may not be cut",
    DropReason.FRAGMENT_OVERLAP: "a fragment that overlaps another",
    DropReason.FRAGMENT_TIMEOUT: "its datagram did not become complete in 30 s, or had no room to wait",
    DropReason.NAT_TABLE_FULL: "would begin a flow, and the translation table is full",
    DropReason.NAT_ADDRESS_LIMIT: "would begin a flow, and its inside address has as many as it may",
    DropReason.NAT_PORTS_EXHAUSTED: "would begin a flow, and no outside port is free for it",
    DropReason.NAT_NO_ENTRY: "came from outside for no flow and no forwarded port",
    DropReason.NAT_STATE: "a TCP segment that does not fit the state of its flow",
    DropReason.NAT_DESTINATION_FORBIDDEN: "destination is not among those that host sockets may reach",
    DropReason.PROTOCOL_UNSUPPORTED: "of a protocol that the router does not serve or translate",
    DropReason.DHCP_EXHAUSTED: "asks for an address, and none is free or the port has as many as it may",
    DropReason.TUNNEL_MALFORMED: "tunnel packet with a bad VXLAN header, or a fragment of one",
    DropReason.TUNNEL_VNI_UNKNOWN: "tunnel packet of a network that no overlay has",
    DropReason.TUNNEL_PEER_UNKNOWN: "tunnel packet from an end that the overlay was not told of",
    DropReason.NO_BACKEND: "for a virtual server without backends",
    DropReason.FAULT: "an injected fault took it",
    DropReason.KERNEL: "the kernel took it and gave it to nobody, for a reason that it does not tell",
}
