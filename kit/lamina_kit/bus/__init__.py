"""The memory bus, one file that is the host's RAM and that services map: its layout, pages and words."""
