"""What a layer records of itself while it works: log lines, spans, events, numbers, pressure."""
