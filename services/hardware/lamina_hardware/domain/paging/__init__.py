"""Page walks and TLBs as the manual describes them, to explain a translation, not to make it fast."""
