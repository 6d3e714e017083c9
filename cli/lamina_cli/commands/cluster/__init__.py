"""Words about objects of the cluster, which go to the orchestrator."""
