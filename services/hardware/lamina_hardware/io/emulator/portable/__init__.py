"""What the portable core alone needs: all that it does without undocumented internals."""
