"""System calls and files of the kernel, behind the ports that the linux engine asks."""
