"""One port and the device behind it: queues, counters, filters and holds; nothing of the switch."""
