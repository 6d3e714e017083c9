"""One network on a VLAN: what users define of it, and what knows IP there."""
