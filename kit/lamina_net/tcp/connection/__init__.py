"""What one connection knows: its control block and the parts of it, without behaviour among them."""
