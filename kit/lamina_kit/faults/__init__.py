"""What can break on purpose: faults of a layer's parts, and plans of faults of the calls between layers."""
