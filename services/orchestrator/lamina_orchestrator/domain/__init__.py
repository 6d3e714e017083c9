"""Pure types and rules of Kubernetes objects and of those who work on them."""
