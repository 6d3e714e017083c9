"""One IP network on a VLAN: its definition, with DHCP, DNS and a router as packages."""
