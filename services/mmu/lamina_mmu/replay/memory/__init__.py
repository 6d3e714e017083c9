"""The memory that compiled policies work in: its lists, its state, its layout."""
