"""The event loop in virtual time: whatever makes a history follow from its seed."""
