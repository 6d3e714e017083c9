"""Kinds of objects: their schemas, and the types of their fields, such as quantities and timestamps."""
