"""One switch: who is where, and what becomes of each frame."""
