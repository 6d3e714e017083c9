"""What swap areas of the model engine lie on: sparse files, and disks of the machine."""
