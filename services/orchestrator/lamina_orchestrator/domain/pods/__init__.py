"""A pod on its node: from its spec to work for a container runtime, and from what that tells to its status."""
