"""Page replacement: one algorithm a module, and what feeds them and records what they chose."""
