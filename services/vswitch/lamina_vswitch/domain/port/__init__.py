"""One port: its queues, counters, receive filter and hold; nothing of its switch."""
