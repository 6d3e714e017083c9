"""Examples below the help of verbs, and arguments that stand anywhere."""

from __future__ import annotations

import argparse
import shlex

import pytest

from lamina_cli import main
from lamina_cli.commands.hardware import examples as hardware_examples
from lamina_cli.commands.vswitch import examples as vswitch_examples
from lamina_cli.input.verbs import Verbs

WORDS = {"vswitch": vswitch_examples.EXAMPLES, "hardware": hardware_examples.EXAMPLES}


@pytest.mark.parametrize("word", WORDS)
def test_every_verb_has_an_example(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb shows how it is used, and nothing is shown of a verb that is none."""
    with pytest.raises(SystemExit):
        main.build_parser([word]).parse_args([word, "dance"])
    choices = capsys.readouterr().err.partition("choose from ")[2].strip().rstrip(")")
    assert sorted(name.strip("'") for name in choices.split(", ")) == sorted(WORDS[word])
    assert all(line.split()[0] == name for name, lines in WORDS[word].items() for line in lines)


@pytest.mark.parametrize("word", WORDS)
def test_examples_are_read_as_they_stand(word: str) -> None:
    """What the help shows is accepted by the parser that shows it."""
    parser = main.build_parser([word])
    for lines in WORDS[word].values():
        for line in lines:
            assert parser.parse_args([word, *shlex.split(line.partition(" |")[0])]).word == word


def test_the_help_of_a_verb_describes_it_and_ends_with_its_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of one verb says what it does, and how people use it."""
    with pytest.raises(SystemExit) as caught:
        main.build_parser(["vswitch"]).parse_args(["vswitch", "counters", "--help"])
    told = capsys.readouterr().out
    assert caught.value.code == 0 and "\nShow counters and drops by reason" in told
    assert told.endswith("examples:\n  lamina vswitch counters lan\n  lamina vswitch counters lan/alice\n"
                         "  lamina vswitch counters lan --vlans\n")  # fmt: skip


def verb() -> argparse.ArgumentParser:
    """Returns a parser with one verb that takes a name, words and options."""
    parser = argparse.ArgumentParser()
    made = Verbs(parser, "test", {}).add_parser("find", help="find 100% of it")
    made.add_argument("name")
    made.add_argument("words", nargs="*")
    made.add_argument("--deep", action="store_true")
    made.add_argument("--port", action="append", default=[])
    return parser


@pytest.mark.parametrize(
    "line",
    [
        "find lan --deep --port a tcp port 80",
        "find --deep lan tcp --port a port 80",
        "find lan tcp port 80 --port a --deep",
    ],
)
def test_words_may_stand_before_and_after_options(line: str) -> None:
    """A filter is the same filter wherever the options are."""
    found = verb().parse_args(line.split())
    assert (found.name, found.words, found.deep, found.port) == ("lan", ["tcp", "port", "80"], True, ["a"])


@pytest.mark.parametrize(
    ("line", "told"), [("find", "name"), ("find lan --shallow", "--shallow"), ("find lan --port", "--port")]
)
def test_what_is_missing_or_unknown_is_still_told(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is missing, an option that is none, and one without its value end with status 2."""
    with pytest.raises(SystemExit) as caught:
        verb().parse_args(line.split())
    assert caught.value.code == 2 and told in capsys.readouterr().err.splitlines()[-1]


def test_a_word_too_many_is_told_with_how_the_verb_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    """The usage is that of the verb, not that of all of `lamina`, and names the word."""
    for line in ("vswitch delete-port lan alice", "vswitch plug lan/a tap t0 more", "vswitch records lan --shallow"):
        with pytest.raises(SystemExit) as caught:
            main.build_parser(["vswitch"]).parse_args(line.split())
        told = capsys.readouterr().err
        assert caught.value.code == 2 and told.startswith(f"usage: lamina {' '.join(line.split()[:2])} ")
        assert told.endswith(f"error: unrecognized arguments: {line.split()[-1]}\n")
