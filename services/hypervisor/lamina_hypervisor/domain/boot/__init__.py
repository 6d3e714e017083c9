"""How a guest begins: its kernel image, and what it finds in memory and registers at its first instruction."""
