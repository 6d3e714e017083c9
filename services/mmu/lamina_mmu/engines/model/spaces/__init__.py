"""Spaces as wholes: made, forked, charged, and the frames that their holders are granted."""
