"""TCP/IP of one host without I/O of its own: here, the stack that joins the packages, and its use on asyncio."""
