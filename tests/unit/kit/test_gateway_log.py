"""The input log: what is written, and what its reader believes of somebody else's file."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lamina_kit.clock_control import MAX_TIME_NS
from lamina_kit.errors import DataLoss, FailedPrecondition, LaminaError, NotFound, ResourceExhausted
from lamina_kit.gateway.log import AnswerTally, EventTally, Header, InputLog, Record
from lamina_kit.gateway.log_reader import MAX_LINE, InputLogReader
from lamina_kit.rpc.inproc.call import MAX_MESSAGE

SHA = "ab" * 32
HEADER = Header("0.1.0", "1.0", {"seed": 7, "variables": {"A": "ü"}}, "0", {"python": "3.13"})
RECORDS = [
    Record("advance", ns=5, cause="free"),
    Record("open", ns=5, call=1, layer="h2/mmu", method="/a.v1.B/C", metadata=(("k", "v"), ("k-bin", b"\x00\xff"))),
    Record("message", ns=5, call=1, data=b"\x00hello"),
    Record("half_close", ns=6, call=1),
    Record("open", ns=6, call=2, layer="mmu", method="/a.v1.B/D"),
    Record("cancel", ns=6, call=2, cause="slow_reader", callbacks=900),
    Record("answered", ns=7, events=3, call=1, code="OK", messages=2, sha256=SHA),
    Record("set", ns=7, events=3, rate_permille=0, paused=True),
    Record("set", ns=7, events=3),
    Record("collect", ns=8, events=3),
    Record("open", ns=9, events=3, call=3, layer="mmu", method="/a.v1.B/D"),
    Record("deadline", ns=9, events=3, call=3),
    Record("stop", ns=MAX_TIME_NS, events=4),
    Record("end", ns=MAX_TIME_NS, events=4, sha256=SHA),
]
NUMBERED = [replace(record, sequence=number) for number, record in enumerate(RECORDS, 1)]
LINES = [HEADER.line(), *(record.line() for record in NUMBERED)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], list[Record]]:
    """Returns a function that reads a log of the given content."""

    def whole(content: str | bytes) -> list[Record]:
        path = tmp_path / "input.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        reader = InputLogReader(path)
        try:
            return list(reader)
        finally:
            reader.close()

    return whole


def refusal(read: Any, content: str | bytes) -> LaminaError:
    """Returns the error with which a log is refused."""
    with pytest.raises(LaminaError) as caught:
        read(content)
    return caught.value


def changed(at: int, **fields: Any) -> str:
    """Returns the log with fields of line `at` (0: the header) replaced; None takes a field away."""
    entries = json.loads(LINES[at])
    for key, value in fields.items():
        entries.pop(key, None)
        if value is not None:
            entries[key] = value
    return "".join([*LINES[:at], json.dumps(entries) + "\n", *LINES[at + 1 :]])


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Header and records of every kind come back as they were, the end mark last."""
    log = InputLog(tmp_path / "log", HEADER)
    for record in NUMBERED:
        log.write(record)
    log.close()
    assert (tmp_path / "log").read_text() == "".join(LINES)
    reader = InputLogReader(tmp_path / "log")
    assert reader.header == HEADER
    assert list(reader) == NUMBERED and reader.ended
    reader.close()


def test_a_record_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A process that is killed after `write` leaves the record behind: nothing is buffered."""
    log = InputLog(tmp_path / "log", HEADER)
    log.write(NUMBERED[0])
    assert (tmp_path / "log").read_text() == LINES[0] + LINES[1]
    log.close()


def test_only_its_owner_may_read_a_log(tmp_path: Path) -> None:
    """A log holds every request, secrets included; one that replaces a file which all may read does not stay so."""
    path = tmp_path / "log"
    InputLog(path, HEADER).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    InputLog(path, HEADER).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_unwritable_log_says_why(tmp_path: Path) -> None:
    """A path in a folder that does not exist is refused with what the system says."""
    with pytest.raises(FailedPrecondition) as caught:
        InputLog(tmp_path / "missing" / "log", HEADER)
    assert caught.value.reason == "INPUT_LOG_UNWRITABLE" and "No such file" in caught.value.message


def test_a_full_log_takes_no_more_but_its_end(tmp_path: Path) -> None:
    """Inputs are refused below the limit, so that the records with which a log ends still fit."""
    log = InputLog(tmp_path / "log", HEADER, limit=10_000)
    log.check_room(Record("message", call=1, data=b"x" * 100))
    with pytest.raises(ResourceExhausted) as caught:
        log.check_room(Record("message", call=1, data=b"x" * 5000))
    assert caught.value.reason == "INPUT_LOG_FULL"
    log.write(NUMBERED[-1])
    log.close()


def test_the_digest_is_of_the_configuration_alone() -> None:
    """Two headers with equal configurations have one digest, in whatever order their keys stand."""
    other = replace(HEADER, version="9", configuration={"variables": {"A": "ü"}, "seed": 7})
    assert other.digest == HEADER.digest
    assert replace(HEADER, configuration={"seed": 8}).digest != HEADER.digest


def test_tallies_count_and_tell_apart() -> None:
    """Events are digested as lines, answers as messages: how bytes are cut into messages matters."""
    lines: list[str] = []
    tally = EventTally(lines.append)
    tally.add("a\n")
    assert (tally.count, lines) == (1, ["a\n"]) and tally.sha256 != EventTally().sha256
    one, two = AnswerTally(), AnswerTally()
    one.add(b"ab")
    one.add(b"c")
    two.add(b"a")
    two.add(b"bc")
    assert one.record(1, "OK").messages == 2 and one.record(1, "OK").sha256 != two.record(1, "OK").sha256


# ── a log that is not whole ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file and a folder are refused with the path."""
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(NotFound) as caught:
            InputLogReader(path)
        assert caught.value.reason == "INPUT_LOG_NOT_FOUND" and str(path) in caught.value.message


@pytest.mark.parametrize("cut", [0, 1, len(LINES[0]) - 1])
def test_a_log_cut_in_its_header_has_nothing_to_replay(read: Any, cut: int) -> None:
    """A file that ends before its first line does is a log that was cut."""
    assert refusal(read, LINES[0][:cut]).reason == "INPUT_LOG_CUT"


def test_a_log_cut_anywhere_yields_what_is_whole(tmp_path: Path) -> None:
    """At every byte a cut log gives the records before the cut, then INPUT_LOG_CUT with the line."""
    content = "".join(LINES[:6]).encode()
    for cut in range(len(LINES[0]), len(content)):
        (tmp_path / "log").write_bytes(content[:cut])
        reader = InputLogReader(tmp_path / "log")
        seen: list[Record] = []
        with pytest.raises(DataLoss) as caught:
            seen.extend(record for record in reader)
        reader.close()
        lines = content[:cut].count(b"\n")
        assert seen == NUMBERED[: lines - 1]
        assert caught.value.reason == "INPUT_LOG_CUT" and caught.value.metadata["line"] in (str(lines), str(lines + 1))


def test_a_foreign_version_is_named(read: Any) -> None:
    """A format that a later Lamina writes is refused with both versions."""
    problem = refusal(read, changed(0, format_version=2))
    assert problem.reason == "INPUT_LOG_FORMAT_UNKNOWN" and "2" in problem.message and "1" in problem.message


@pytest.mark.parametrize(
    "content",
    [
        b"\x7fELF\x02\x01\x01\n", b"\n", b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\n", b"{" * 100_000 + b"\n",
        b'{"format":"lamina-input","format_version":NaN}\n', b'{"format":"lamina-input","format_version":1.0}\n',
        b'{"format":"lamina-input","format_version":' + b"9" * 5000 + b"}\n", b"x" * (MAX_LINE + 1) + b"\n",
        b'{"format":"lamina-input","format_version":true}\n',
    ],
)  # fmt: skip
def test_what_is_no_log_is_refused(read: Any, content: bytes) -> None:
    """Garbage in the first line is malformed, whatever it is, and said in few words."""
    problem = refusal(read, content)
    assert problem.reason == "INPUT_LOG_MALFORMED" and len(problem.message) < 600


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "other"}, {"version": None}, {"revision": 1}, {"configuration": []}, {"software": {"a": 1}},
        {"software": None}, {"digest": SHA}, {"state": "odd"}, {"hash_seed": None}, {"configuration": {"seed": 8}},
    ],
)  # fmt: skip
def test_a_wrong_header_is_refused(read: Any, fields: dict[str, Any]) -> None:
    """Each field of the header is checked; the digest is that of the configuration."""
    assert refusal(read, changed(0, **fields)).reason == "INPUT_LOG_MALFORMED"


# ── records that cannot be ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (1, {"kind": "boom"}), (1, {"kind": None}), (1, {"cause": "why"}), (1, {"ns": -1}), (1, {"ns": True}),
        (1, {"ns": MAX_TIME_NS + 1}), (1, {"ns": "5"}), (1, {"seq": 2}), (1, {"events": None}), (1, {"extra": 1}),
        (1, {"callbacks": -1}), (2, {"call": 2}), (2, {"call": 0}), (2, {"layer": "../mmu"}), (2, {"layer": "MMU"}),
        (2, {"method": "a.v1.B/C"}), (2, {"method": "/a/b/c"}), (2, {"metadata": {}}), (2, {"metadata": [["k"]]}),
        (2, {"metadata": [["k", 1]]}), (2, {"metadata": [["K", "v"]]}), (2, {"metadata": [["k-bin", "text"]]}),
        (2, {"metadata": [["k-bin", {"base64": "%"}]]}), (3, {"call": 2}), (3, {"data": "%%%"}), (3, {"data": 5}),
        (3, {"ns": 4}), (6, {"cause": "shutdown"}), (7, {"code": "FINE"}),
        (7, {"sha256": "AB" * 32}), (7, {"messages": -1}), (8, {"rate_permille": -1}), (8, {"paused": 1}),
        (8, {"events": 2}), (11, {"call": 9}),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_is_refused_with_its_line(read: Any, line: int, fields: dict[str, Any]) -> None:
    """Kinds, types, ranges, order and the lives of calls are checked; the message names the line."""
    problem = refusal(read, changed(line, **fields))
    assert problem.reason == "INPUT_LOG_MALFORMED" and f"Line {line + 1} " in problem.message


@pytest.mark.parametrize(
    ("before", "record", "why"),
    [
        (4, Record("message", ns=6, call=1), "closed its half"),
        (4, Record("half_close", ns=6, call=1), "closed its half"),
        (7, Record("message", ns=7, events=3, call=1), "not open"),
        (7, Record("cancel", ns=7, events=3, call=2, cause="client"), "not open"),
        (7, Record("answered", ns=7, events=3, call=1, code="OK", sha256=SHA), "not open"),
        (7, Record("open", ns=7, events=3, call=2, layer="mmu", method="/a/B"), "opens call 2 behind call 2"),
    ],
)
def test_a_call_lives_once(read: Any, before: int, record: Record, why: str) -> None:
    """A client that has said all says no more, a call that has ended gets nothing, and numbers are not used again."""
    content = "".join(LINES[: before + 1]) + replace(record, sequence=before + 1).line()
    problem = refusal(read, content)
    assert problem.reason == "INPUT_LOG_MALFORMED" and why in problem.message


def test_a_message_of_the_largest_size_fits_a_line(read: Any) -> None:
    """The longest line holds a message of 8 MiB, and one byte more is refused."""
    opening = LINES[0] + replace(NUMBERED[1], sequence=1).line()
    whole = replace(NUMBERED[2], sequence=2, data=bytes(MAX_MESSAGE)).line()
    assert refusal(read, opening + whole).reason == "INPUT_LOG_CUT"
    longer = replace(NUMBERED[2], sequence=2, data=bytes(MAX_MESSAGE + 1)).line()
    assert refusal(read, opening + longer).reason == "INPUT_LOG_MALFORMED"


def test_nothing_stands_behind_the_end(read: Any) -> None:
    """What follows the end mark was put there by somebody else."""
    problem = refusal(read, "".join(LINES) + " ")
    assert problem.reason == "INPUT_LOG_MALFORMED" and "behind the end mark" in problem.message


def test_hostile_values_are_shown_cut_and_escaped(read: Any) -> None:
    """A message repeats little of a wrong value and none of its control characters."""
    problem = refusal(read, changed(1, kind="\x1b[2J" + "x" * 10_000))
    assert "\x1b" not in problem.message and len(problem.message) < 600


def test_data_are_plain_base64() -> None:
    """Whoever looks into a log can decode a message by hand."""
    assert base64.b64decode(json.loads(LINES[3])["data"]) == b"\x00hello"
