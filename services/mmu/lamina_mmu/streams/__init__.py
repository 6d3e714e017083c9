"""Streams that stay open, with holders of frames, suppliers of content, plugged-in policies, watchers of groups."""
