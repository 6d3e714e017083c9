"""The switches of a host in this process, pure: frames in, forwarding, frames out."""
