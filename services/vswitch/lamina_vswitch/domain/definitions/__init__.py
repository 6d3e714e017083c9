"""What users define of switches, groups and ports, and what holds for the catalog of that."""
