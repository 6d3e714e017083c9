"""What is printed: tables, JSON, progress, and single values."""
