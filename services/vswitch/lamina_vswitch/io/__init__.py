"""Sockets, files, timers and devices of the machine; what happens with the frames is decided elsewhere."""
