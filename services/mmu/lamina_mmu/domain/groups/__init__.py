"""Memory groups: their limits, charges and protection, and what is reported of them."""
