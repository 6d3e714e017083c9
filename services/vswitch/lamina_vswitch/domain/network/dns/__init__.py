"""DNS: the zone of a network, and the responder that answers from it."""
