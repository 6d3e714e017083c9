"""A trace on its way in: bytes become accesses, touches of pages, small numbers, and a spool on disk."""
