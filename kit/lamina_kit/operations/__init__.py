"""How operators set and see a process: its section of the configuration, reload, metrics, export."""
