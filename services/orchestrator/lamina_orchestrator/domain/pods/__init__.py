"""A pod on its node: the steps from its spec to running containers, and its status from theirs."""
