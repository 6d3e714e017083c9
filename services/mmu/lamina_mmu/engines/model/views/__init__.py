"""What callers are shown of spaces, objects, frames and pages, without changing any."""
