"""Contract to domain and back: whatever knows both a message and a type of the domain."""
