"""Cores that are processors of this machine: whatever speaks to /dev/kvm or interprets its exits."""
