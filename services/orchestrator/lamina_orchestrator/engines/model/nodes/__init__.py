"""What is done with nodes: whether they answer, which pods are bound to them, the work on those pods."""
