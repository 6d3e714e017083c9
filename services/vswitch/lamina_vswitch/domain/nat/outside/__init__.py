"""Outsides that carry packets: a station at an uplink, or a kernel that routes them on."""
