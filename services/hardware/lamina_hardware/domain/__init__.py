"""Rules of the machine without time and I/O: what is true of hardware whoever runs it."""
