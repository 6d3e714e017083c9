"""Services and streams of the contract: whatever answers one caller."""
