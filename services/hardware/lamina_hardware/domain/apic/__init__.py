"""Interrupts: the local APIC, messages to it, and what waits to interrupt a context."""
