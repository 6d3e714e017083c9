"""Whole spaces: created, forked, charged, ended, and the frames that holders are granted in them."""
