"""All of memory management in Python over page tables in RAM, pure; the engine routes to the packages here."""
