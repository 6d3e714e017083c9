"""User memory: address spaces, copies from and to it, file contents as memory objects, futexes."""
