"""What every layer is to the others: its service, its state, and the sessions of those who own objects in it."""
