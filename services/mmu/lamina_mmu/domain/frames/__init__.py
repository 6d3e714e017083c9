"""Page frames of RAM: which are free, what each is used for, who maps it."""
