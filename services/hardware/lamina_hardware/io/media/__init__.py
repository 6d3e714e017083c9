"""What carries the frames of a wire out of this process: sockets and devices of the kernel."""
