"""`lamina mmu replay`: traces from files, tables, JSON and drawings, without a stack."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from lamina_cli.commands.mmu import replay, trace_files
from lamina_cli.commands.mmu.trace_files import Source
from lamina_cli.guests.assets import asset
from lamina_cli.main import main
from lamina_cli.output.drawing import chart, png, svg
from lamina_cli.output.drawing.glyphs import GLYPHS

BELADY = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]
RAW = b"".join((page * 4096).to_bytes(8, "little") for page in BELADY)
ORACLE = b"".join(struct.pack("<IQIq", 0, page, 1, -1) for page in BELADY)
CSV = "".join(f"{page * 4096}\n" for page in BELADY).encode()
LACKEY = b"==1== x\n" + "".join(f" L {page * 4096:x},1\n" for page in BELADY).encode()


def run(*words: str, expect: int = 0) -> None:
    """Runs the command, which has to end with the status `expect`."""
    assert main(["mmu", "replay", *words]) == expect


def results(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Returns what the command prints as JSON."""
    capsys.readouterr()
    run(*words, "-o", "json")
    return json.loads(capsys.readouterr().out)


def test_beladys_anomaly_is_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """FIFO misses 9 times with 3 frames, and 10 times with 4, in JSON of exactly this shape."""
    found = results(capsys, str(asset("examples/traces/belady.csv")), "--policy", "fifo", "--frames", "3,4")
    assert list(found) == ["results"]
    assert [(one["policy"], one["frames"], one["hits"], one["misses"]) for one in found["results"]] == [
        ("fifo", 3, 3, 9), ("fifo", 4, 2, 10),
    ]  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    ("name", "data"), [("t.bin", RAW), ("t", CSV), ("t.log", LACKEY), ("t.oracleGeneral.zst", ORACLE)]
)
def test_formats_are_seen(
    name: str, data: bytes, pack: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every format, however it is compressed, is what it is without being named."""
    path = tmp_path / name
    path.write_bytes(pack(data))
    found = results(capsys, str(path), "--policy", "lru,opt", "--frames", "3")
    assert [one["misses"] for one in found["results"]] == [10, 7]


@pytest.mark.parametrize("data", [CSV, LACKEY], ids=["csv", "lackey"])
def test_formats_are_seen_behind_a_long_first_block(
    data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text in zstd is seen also where its first block is longer than what is looked at."""
    noise = np.random.default_rng(1).integers(1 << 47, size=20_000)
    line = " S {:x},1\n" if data is LACKEY else "{}\n"
    path = tmp_path / "t.zst"
    path.write_bytes(zstandard.compress(data + "".join(line.format(int(number)) for number in noise).encode()))
    assert results(capsys, str(path), "--frames", "3")["results"][0]["accesses"] == len(BELADY) + noise.size


def test_what_is_named_twice_is_answered_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Policies and numbers of frames keep the order in which they were first named."""
    path = tmp_path / "t.bin"
    path.write_bytes(RAW)
    words = (str(path), "--policy", "lru,opt,lru", "--frames", "3,4,3", "--explain", "1")
    found = results(capsys, *words)
    assert [one["misses"] for one in found["results"]] == [10, 8, 7, 6]
    assert [one["frames"] for one in found["explanations"]] == [3, 4] * 2


def test_a_named_format_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is said of a trace is not guessed; keys have pages of their own unless a size is given."""
    path = tmp_path / "keys"
    path.write_bytes(ORACLE)
    words = (str(path), "--format", "oracleGeneral", "--compression", "none", "--frames", "3")
    assert results(capsys, *words)["results"][0]["misses"] == 10
    assert results(capsys, *words, "--page-size", "4096")["results"][0]["misses"] == 1


def test_standard_input_is_a_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`-` reads it."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CSV)))
    assert results(capsys, "-", "--frames", "3")["results"][0]["misses"] == 10


def test_tables_tell_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results with the TLB, evictions beside the best choice, and a curve."""
    path = tmp_path / "t"
    path.write_bytes(CSV)
    run(str(path), "--policy", "fifo,opt", "--frames", "3", "--tlb", "4:2,12", "--explain", "1", "--curve")
    out = capsys.readouterr().out
    assert "TLB MISSES" in out and "WHY IT WENT" in out and "came first, at access 0" in out
    assert "opt: misses of 12 accesses by number of frames" in out
    assert next(line.split() for line in out.splitlines() if line.startswith("fifo  "))[4] == "9"


def test_a_trace_that_is_cut_is_refused_or_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names reason and next step; with --partial what was there is the answer."""
    path = tmp_path / "t.bin"
    path.write_bytes(RAW[:-3])
    run(str(path), "--frames", "3", expect=1)
    assert "TRACE_TRUNCATED" in (err := capsys.readouterr().err) and "next:" in err
    run(str(path), "--frames", "3", "--partial")
    assert "cut off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--frames", "3", "--policy", "lur"), "POLICY_UNKNOWN"), (("--frames", "0"), "REQUEST_INVALID"),
        (("--frames", "4294967297"), "REQUEST_INVALID"), (("--frames", "3", "--plot", "x.gif"), "PLOT_FORMAT_UNKNOWN"),
        (("--frames", "3", "--compression", "gzip"), "TRACE_MALFORMED"),
        (("--frames", "3", "--plot", "/nowhere/x.svg"), "PLOT_UNWRITABLE"),
        (("--frames", "3", "--stack", "none"), "STACK_NOT_UP"),
    ],
)  # fmt: skip
def test_mistakes_are_told(
    words: tuple[str, ...], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Each has a reason."""
    monkeypatch.setenv("LAMINA_HOME", str(tmp_path))
    path = tmp_path / "t.bin"
    path.write_bytes(RAW)
    run(str(path), *words, expect=1)
    assert reason in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names it."""
    run("/nowhere/trace", "--frames", "3", expect=1)
    assert "/nowhere/trace" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "levels"),
    [("64", (64, 4, 0, 12)), ("64:8,1536", (64, 8, 1536, 12)), ("6,1024", (6, 3, 1024, 8)), ("1", (1, 1, 0, 12))],
)
def test_tlbs_are_short_to_write(text: str, levels: tuple[int, ...]) -> None:
    """Ways that are left out are the usual ones, or the most below them that divide the entries."""
    assert replay.tlb(text) == levels


@pytest.mark.parametrize("text", ["0", "0:4", "-1", "0,1536"])
def test_a_tlb_has_entries(text: str) -> None:
    """No entries are not taken for the usual ones."""
    with pytest.raises(argparse.ArgumentTypeError):
        replay.tlb(text)


def test_three_levels_are_too_many() -> None:
    """A TLB has two."""
    with pytest.raises(argparse.ArgumentTypeError):
        replay.tlb("1,2,3")


def test_a_head_that_is_not_compressed_so_is_seen_as_addresses() -> None:
    """Magic bytes with nothing behind them raise nothing while the format is looked for."""
    for magic, kind in ((trace_files.GZIP, "gzip"), (trace_files.ZSTD, "zstd")):
        source = Source("t", io.BytesIO(magic + b"\xff" * 9))
        assert (source.compression, source.format(kind)) == (kind, "raw")


def picture() -> chart.Picture:
    """Returns a chart with two lines."""
    return chart.lines(
        "Title <&>", "x", "y",
        [chart.Series("a", ((1.0, 1.0), (10.0, 0.5), (1000.0, 0.1))), chart.Series("b", ((1.0, 0.2), (1000.0, 0.0)))],
    )  # fmt: skip


def test_svg_is_a_document() -> None:
    """It parses, has a line for each series, and texts are escaped."""
    root = ElementTree.fromstring(svg.draw(picture()))
    assert "Title <&>" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    strokes = [element.get("stroke") for element in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert {svg.code(color) for color in chart.COLORS[:2]} <= set(strokes)


def test_png_has_the_colors_of_its_lines() -> None:
    """It is a PNG whose pixels, unpacked, hold the background and both lines' colours, inside the axes."""
    data = png.draw(picture())
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (2 * chart.WIDTH, 2 * chart.HEIGHT)
    size = struct.unpack(">I", data[33:37])[0]
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + size]), np.uint8).reshape(height, 1 + 3 * width)
    pixels = rows[:, 1:].reshape(height, width, 3)
    for color in ((255, 255, 255), *chart.COLORS[:2]):
        assert (pixels == np.array(color, np.uint8)).all(axis=2).any()


def test_every_letter_has_a_glyph() -> None:
    """From blank to z, five columns each, and only the blank is empty."""
    assert len(GLYPHS) == ord("z") - ord(" ") + 1
    assert {len(columns) for columns in GLYPHS} == {5}
    assert [index for index, columns in enumerate(GLYPHS) if not any(columns)] == [0]


def test_plots_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--plot draws the curves, in the format of the name."""
    path = tmp_path / "t"
    path.write_bytes(CSV)
    for name, start in (("c.svg", b"<svg"), ("c.PNG", b"\x89PNG")):
        run(str(path), "--frames", "3", "--plot", str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(start)
    capsys.readouterr()


def test_an_axis_ends_at_a_round_number() -> None:
    """The smallest of 1, 2, 2.5, 5 times a power of ten above the value; many points are thinned to the ends."""
    assert [chart.ceiling(value) for value in (0, 0.3, 1.0, 2.2, 7)] == [1.0, 0.5, 1.0, 2.5, 10.0]
    points = [(float(x), 0.0) for x in range(1, 100_001)]
    thin = chart.thinned(points)
    assert len(thin) <= chart.MOST_POINTS and (thin[0], thin[-1]) == (points[0], points[-1])
