"""Images, sandboxes and containers of one host as a service: here, the service, its settings and its runtime."""
