"""Images, sandboxes and containers of one host: the service, its settings, and the runtime behind it."""
