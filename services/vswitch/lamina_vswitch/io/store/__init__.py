"""Definitions in SQLite, a module for each kind, in one database."""
