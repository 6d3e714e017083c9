"""What happens to an object before it is stored: defaults, validation, fields that callers may not set."""
