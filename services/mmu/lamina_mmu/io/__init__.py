"""Files, sockets and threads of the MMU: what fills the ports of the domain."""
