"""A NIC: rings, and what is done to a frame on its way in and out."""
