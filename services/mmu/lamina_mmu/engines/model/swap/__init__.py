"""One page between its frame and its swap slot, whatever the area lies on."""
