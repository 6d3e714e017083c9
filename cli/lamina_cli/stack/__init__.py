"""Stacks as processes: composing the layers, starting and stopping them, keeping them up, recording runs."""
