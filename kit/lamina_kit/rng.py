"""The seeded source of ids and choices. Pure: everything follows from the seed.

A stack has one `Rng`; each layer and each part of it takes a `child` with a label of its own. A child depends on the
seed and the label alone, not on how much was drawn before, so adding a draw in one place moves no id in another.
"""

from __future__ import annotations

import builtins
import hashlib
import random

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no look-alikes: an id never spells a word and survives being read aloud."""
_ID_LENGTH = 8


class Rng(random.Random):
    """A `random.Random` that also makes ids, bytes and children.

    `seed` is any integer or text. Not for keys: it is a Mersenne Twister.
    """

    def __init__(self, seed: int | str) -> None:
        super().__init__(0)
        self.label = str(seed)
        super().seed(int.from_bytes(hashlib.sha256(self.label.encode()).digest(), "big"))

    def id(self, prefix: str) -> str:
        """Returns a new id such as `s-4kx7m2qd`: 27^8 ≈ 2.8 · 10¹¹ values. An owner of few ids checks for a clash."""
        return f"{prefix}-{''.join(self.choices(_ALPHABET, k=_ID_LENGTH))}"

    def bytes(self, n: int) -> builtins.bytes:
        """Returns `n` random bytes."""
        return self.randbytes(n)

    def child(self, label: str) -> Rng:
        """Returns the source that belongs to `label`; the same for the same seed and label, whenever asked."""
        return Rng(f"{self.label}/{label}")
