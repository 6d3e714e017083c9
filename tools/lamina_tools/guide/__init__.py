"""Pages that are run: console blocks are read, typed by a shell of their own, and compared with what comes back."""
