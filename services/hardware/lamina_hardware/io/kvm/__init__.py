"""Cores that are processors of this machine: whatever talks to /dev/kvm or explains its exits."""
