"""The translation table: which flows there are, whose ports are taken, and packets on their way through."""
