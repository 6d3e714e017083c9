"""TCP as its user sees it, and what connections share: segments, tables, settings, secrets."""
