"""What an engine of the MMU is; each subpackage is one."""
