"""The verbs of `lamina mmu`, a module a kind of object, and the files and tables of replays."""
