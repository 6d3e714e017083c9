"""What a port, a group or a switch allows and limits, and the algorithms that keep to it."""
