"""The state of one connection: its control block and the parts of it, such as congestion and reordering."""
