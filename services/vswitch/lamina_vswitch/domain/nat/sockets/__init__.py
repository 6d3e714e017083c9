"""The outside of a network as sockets of the host: flows end here and begin again there."""
