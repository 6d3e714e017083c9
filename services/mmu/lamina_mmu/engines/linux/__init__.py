"""The kernel as an engine: spaces are processes, groups are cgroups, objects are memory files."""
