"""Memory groups at work: charging, limits and protection."""
