"""Fault injection: plans of what breaks, in a layer's parts or in calls between layers."""
