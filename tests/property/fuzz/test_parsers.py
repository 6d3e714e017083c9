"""Every parser takes its seeds, and seeds with some bytes changed; `./run fuzz` finds a parser that breaks."""

from __future__ import annotations

import importlib.util
import random
import sys
import textwrap
from pathlib import Path

import pytest
from tests.property.fuzz.parsers import PARSERS, Parser

from lamina_tools import fuzz

CHANGED = 60
"""How many changed seeds each parser gets. `./run fuzz --seconds 60` is the long form."""


def changed(rng: random.Random, parser: Parser) -> bytes:
    """Returns a seed cut, with bytes set to telling values, or with a piece of another seed put in."""
    data = bytearray(rng.choice(parser.seeds))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and data:
            data[at % len(data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            other = rng.choice(parser.seeds)
            begin = rng.randrange(len(other) + 1)
            data[at:at] = other[begin : begin + rng.randint(1, 40)]
        else:
            data[at : at + 4] = rng.randbytes(rng.randint(0, 4))
    return bytes(data)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_parser_takes_seeds_and_changed_seeds(parser: Parser) -> None:
    """What has to hold for any bytes holds for those that are right and for some that are nearly right."""
    rng = random.Random(parser.name)
    assert parser.seeds, "a search begins with something"
    for seed in (*parser.seeds, b"", b"\0" * 64, b"\xff" * 64):
        parser.check(seed)
    for _ in range(CHANGED):
        parser.check(changed(rng, parser))


def test_names_are_each_others_only() -> None:
    """A name says one parser."""
    assert len({parser.name for parser in PARSERS}) == len(PARSERS)
    assert fuzz.main(["no-such-parser"]) == 2


def test_a_search_finds_what_breaks_and_says_how_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A planted parser breaks at four bytes that chance would not find; its bytes break it again."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("there is no atheris")
    (tmp_path / "planted.py").write_text(
        textwrap.dedent("""
            class Parser:
                name, seeds = "planted", (b"xxxxxxxx",)
                def check(self, data):
                    if data[:1] == b"L":
                        if data[1:2] == b"a":
                            assert data[2:4] != b"mi", "broken"
            PARSERS = [Parser()]
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    search = ["planted", "--table", "planted", "--corpus", str(tmp_path / "corpus"), "--seed", "1", "--seconds", "60"]
    assert fuzz.main(search) == 1
    (broken,) = (tmp_path / "corpus/failures/planted").iterdir()
    assert broken.read_bytes().startswith(b"Lami")
    assert f"./run fuzz planted --replay {broken}" in capfd.readouterr().out
    with pytest.raises(AssertionError, match="broken"):
        fuzz.main(["planted", "--table", "planted", "--replay", str(broken)])
