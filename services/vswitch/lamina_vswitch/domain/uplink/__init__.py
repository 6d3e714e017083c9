"""Ports that lead out of a host: their definition, and how a team shares frames among them."""
