"""The local APIC: its registers and timer, messages to it, and interrupts that are pending."""
