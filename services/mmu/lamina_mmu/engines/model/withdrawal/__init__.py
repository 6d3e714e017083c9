"""Taking pages from whoever has them: from cores by shootdown, from holders by revocation, from their frames."""
