"""One vCPU: its registers, its CPUID and MSRs, its state."""
