"""The host's RAM as one file that services map: its layout, its pages, and access to its words."""
