"""Words below `lamina mmu`, a module for each kind of object, and replays with their tables."""
