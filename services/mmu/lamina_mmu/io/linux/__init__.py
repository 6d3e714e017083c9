"""System calls and files of the kernel behind the ports of the linux engine."""
