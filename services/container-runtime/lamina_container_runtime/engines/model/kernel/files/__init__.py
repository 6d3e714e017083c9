"""What a path or a descriptor leads to: inodes, open files, pipes, devices; knows no process."""
