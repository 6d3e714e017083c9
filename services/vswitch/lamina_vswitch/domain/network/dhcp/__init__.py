"""The addresses of a network: leases, and the protocol that gives them."""
