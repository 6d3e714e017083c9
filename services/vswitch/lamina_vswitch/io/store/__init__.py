"""Definitions in SQLite: a module for each kind, all in one database."""
