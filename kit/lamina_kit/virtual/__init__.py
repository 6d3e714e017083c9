"""The event loop in virtual time and what runs on it: whatever makes a history follow from its seed."""
