"""One page between its frame and its slot, whatever its area lies on."""
