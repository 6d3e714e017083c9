"""Page tables: what the bits of an entry mean, and where entries lie."""
