"""How a guest starts: its kernel image (ELF), and memory and registers at its first instruction."""
