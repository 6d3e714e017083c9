"""Words about containers and images, which call the container runtime."""
