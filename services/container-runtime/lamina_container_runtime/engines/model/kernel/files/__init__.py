"""What paths and descriptors lead to: inodes, the overlay, open files, pipes, devices."""
