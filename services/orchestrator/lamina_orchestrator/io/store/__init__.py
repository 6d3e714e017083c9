"""Stores of objects with one behaviour: SQLite, and memory."""
