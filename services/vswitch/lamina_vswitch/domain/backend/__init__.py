"""What plugs into a port from outside of the contract: its definition, and frames in foreign forms."""
