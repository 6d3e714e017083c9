"""Types and algorithms of memory, pure: what spaces, objects, holds and engines have in common lies here."""
