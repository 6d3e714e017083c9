"""The machine: cores, memory, devices, disks and wires of one host, and who uses them."""
