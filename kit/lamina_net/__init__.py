"""A host's TCP/IP, driven from outside: here, the stack that joins the parts, and its shell on asyncio."""
