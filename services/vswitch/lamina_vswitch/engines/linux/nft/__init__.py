"""Policies as programs of nftables, and the table that holds them in the kernel."""
