"""The formats on the wire: each module parses one header without raising and builds it with right sums."""
