"""The router of a network: ARP, routes, and the services at its own address."""
