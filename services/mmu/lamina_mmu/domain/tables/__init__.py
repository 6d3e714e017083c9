"""Page tables: what an entry means, and where entries lie."""
