"""The verbs of a word: each with a description, examples below its help, and a filter that may stand anywhere.

Examples are data, so that a test reads each of them with the parser that they explain.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

Examples = Mapping[str, Sequence[str]]
"""Verb → commands without `lamina WORD`, such as `create-port lan alice`."""

_OPEN_ENDED = ("*", "+")


class VerbParser(argparse.ArgumentParser):
    """A parser that takes words of an open-ended argument before and after options: `records lan --steps tcp port 80`.

    argparse by itself takes them in one piece only, and calls the rest unrecognized. What is one word too many is told
    with how the verb is used; argparse would show how `lamina` is.
    """

    _is_reading = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Reads arguments as argparse does, mixed ones included; none is left over."""
        if self._is_reading:
            return super().parse_known_args(args, namespace)
        found, more = self._parsed(args, namespace)
        if more:
            self.error(f"unrecognized arguments: {' '.join(more)}")
        return found, more

    def _parsed(self, args: Any, namespace: Any) -> tuple[Any, list[str]]:
        if not any(_is_open_ended(action) for action in self._get_positional_actions()):
            return super().parse_known_args(args, namespace)
        self._is_reading = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_reading = False


def _is_open_ended(action: argparse.Action) -> bool:
    return action.nargs in _OPEN_ENDED


class Verbs:
    """The sub-commands of `parser`; stands for what `add_subparsers` returns."""

    def __init__(self, parser: argparse.ArgumentParser, word: str, examples: Examples) -> None:
        self._actions = parser.add_subparsers(metavar="VERB", required=True, parser_class=VerbParser)
        self._word = word
        self._examples = examples
        self.names: list[str] = []

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:  # argparse calls it help
        """Adds a verb; its help text is its description, and its examples follow the options."""
        self.names.append(name)
        shown = "\n".join(f"  lamina {self._word} {line}".replace("%", "%%") for line in self._examples.get(name, ()))
        return self._actions.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.".replace("%", "%%"),
            epilog=f"examples:\n{shown}" if shown else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
