"""One call between layers: channels, interceptors, retries, deadlines, status."""
