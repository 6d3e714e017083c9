"""What happens to a connection, an event at a time: segments, calls, timers (RFC 9293, 3.10)."""
