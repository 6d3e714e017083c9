"""Words about Kubernetes objects, which call the orchestrator."""
