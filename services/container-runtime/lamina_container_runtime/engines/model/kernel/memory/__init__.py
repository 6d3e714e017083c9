"""User memory as the kernel sees it: address spaces, copies to and from them, futexes, objects of file contents."""
