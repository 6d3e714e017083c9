"""What people watch of the switches: captures, mirrors, changes of ports, and the ways of frames."""
