"""DHCP: the leases of a network, and the protocol that gives and renews them."""
