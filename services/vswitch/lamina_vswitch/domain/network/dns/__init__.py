"""The names of a network: zones, and the protocol that answers for them."""
