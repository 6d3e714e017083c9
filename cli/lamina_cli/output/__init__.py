"""What people and programs are shown: tables, JSON, errors, progress, and how single values look."""
