"""The path of a frame through all switches and networks of a host, explained hop by hop."""
