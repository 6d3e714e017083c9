"""Scheduling: which node a pod gets, by filters and scores over the table of nodes."""
