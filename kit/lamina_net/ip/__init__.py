"""The link and internet layers of a host: interfaces, neighbours, routes, fragments."""
