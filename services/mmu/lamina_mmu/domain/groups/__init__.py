"""Memory groups: limits, charges, protection, and what happens to them."""
