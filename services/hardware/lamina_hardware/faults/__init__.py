"""What can break by a plan: the kinds of faults of the layer, by what they break."""
