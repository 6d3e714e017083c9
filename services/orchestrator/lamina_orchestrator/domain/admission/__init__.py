"""What an object passes before it is stored: defaults, validation, and what only the system writes."""
