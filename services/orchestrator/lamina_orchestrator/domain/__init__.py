"""Kubernetes objects and the algorithms over them, pure: no store, no clock."""
