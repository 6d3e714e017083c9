"""What operators set and read of a process: its configuration, reload, metrics, export of traces."""
