"""Page frames: which are free, what each is used for, and which entries map it."""
