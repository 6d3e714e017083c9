"""The real machine as /proc and /sys tell it: whatever reads facts out of texts."""
