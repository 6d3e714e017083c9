"""The driver of a NIC of the hardware below, and the port that it serves."""
