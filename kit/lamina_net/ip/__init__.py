"""The link and internet layers: interfaces, neighbours, routes, fragments."""
