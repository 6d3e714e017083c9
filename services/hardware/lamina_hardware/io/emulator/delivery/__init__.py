"""Exceptions and interrupts on their way through the guest's tables to its handler."""
