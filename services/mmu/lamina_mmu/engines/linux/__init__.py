"""The kernel of this machine as engine: spaces are processes, groups are cgroups, objects are memfds."""
