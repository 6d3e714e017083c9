"""Backends that this process opens: TAP, veth, packet and datagram sockets, capture files, the bypass."""
