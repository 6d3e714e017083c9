"""What carries the frames of a wire beyond this process: datagram sockets, TAPs and packet rings."""
