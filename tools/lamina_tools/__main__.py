"""Runs one of the words that `./run` keeps to itself: `python -m lamina_tools test|check|gen|bench|fuzz|mutate …`."""

from __future__ import annotations

import importlib
import sys

WORDS = {
    "test": "testing",
    "check": "checks",
    "gen": "generate",
    "bench": "bench",
    "fuzz": "fuzz",
    "mutate": "mutation.command",
}


def main(arguments: list[str]) -> int:
    """Runs a word with its arguments; returns its exit status, 2 for a word that there is not."""
    word, *rest = arguments or [""]
    if word not in WORDS:
        print(f"run: there is no word {word!r} here; there are {', '.join(WORDS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"lamina_tools.{WORDS[word]}")
    return int(module.main(rest))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
