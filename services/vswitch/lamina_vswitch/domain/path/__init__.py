"""The way of one frame through all of a host, hop by hop."""
