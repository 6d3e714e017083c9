"""What every layer serves and keeps: its common service, its state, sessions and who owns what in them."""
