"""One virtual processor: its registers, its features as the guest reads them, its state."""
