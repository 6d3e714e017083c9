"""TCP as its user sees it, and what connections share: the table, segments, sequence numbers, cookies."""
