"""What a layer records while it works: log lines, spans, events, metrics, pressure."""
