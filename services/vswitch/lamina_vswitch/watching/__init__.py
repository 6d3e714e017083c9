"""What callers watch: captures, mirrors, changes of ports, paths of frames."""
