"""Policies as rules of nf_tables, and those rules in the kernel."""
