"""What swap areas lie on: sparse files, and disks of the hardware below."""
