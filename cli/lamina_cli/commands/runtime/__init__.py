"""Words about containers and images, which go to the container runtime."""
