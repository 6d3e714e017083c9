"""What all services share, and nothing of any one layer: here, the words that the packages have in common."""
