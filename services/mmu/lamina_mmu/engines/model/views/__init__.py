"""What callers are shown of spaces, objects, frames and pages, without side effects on what pages hold."""
