"""Guest programs and kernels: sources, compiler, images, and how they come into a stack."""
