"""Captures and mirrors: which frames they select, and the records that they keep."""
