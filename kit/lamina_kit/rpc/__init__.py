"""One call between layers: its channel, what runs around its handler, its errors, and how it ends."""
