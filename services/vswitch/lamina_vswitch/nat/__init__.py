"""Translations of a host at work: their definitions and state, port forwards, outsides."""
