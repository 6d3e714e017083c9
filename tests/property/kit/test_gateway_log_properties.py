"""Input logs: what is written is read, and a log that somebody tampered with is refused, never believed or a crash."""

from __future__ import annotations

import json
import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.kit.gateway_stack import SERVICE, replayed

from lamina_kit.clock_control import MAX_RATE_PERMILLE
from lamina_kit.errors import LaminaError
from lamina_kit.gateway.log import ADVANCE_CAUSES, CANCEL_CAUSES, Header, InputLog, Record
from lamina_kit.gateway.log_reader import InputLogReader

REASONS = {"INPUT_LOG_MALFORMED", "INPUT_LOG_CUT", "INPUT_LOG_FORMAT_UNKNOWN"}
HEADER = Header("0.1.0", "1.0", {"seed": 7}, "0", {"python": "3.13"})

idents = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
layers = st.one_of(idents, st.tuples(idents, idents).map("/".join))
methods = st.from_regex(r"/[A-Za-z0-9_.]{1,20}/[A-Za-z0-9_]{1,20}", fullmatch=True)
keys = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=12)
texts = st.tuples(keys.filter(lambda key: not key.endswith("-bin")), st.text(string.printable, max_size=20))
blobs = st.tuples(keys.map(lambda key: f"{key}-bin"), st.binary(max_size=20))
metadata = st.lists(st.one_of(texts, blobs), max_size=3).map(tuple)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def logs(
    draw: st.DrawFn, places: st.SearchStrategy[str] = layers, names: st.SearchStrategy[str] = methods
) -> list[Record]:
    """Returns records that can follow each other: calls open, get messages, half close, and end."""
    records: list[Record] = []
    half: dict[int, bool] = {}
    opened, ns, events = 0, 0, 0
    for number in range(1, draw(st.integers(1, 25)) + 1):
        ns += draw(st.integers(0, 10**12))
        events += draw(st.integers(0, 3))
        choices = ["open", "advance", "set", "collect", *(["of_call"] if half else [])]
        kind = draw(st.sampled_from(choices))
        record = Record(kind)
        if kind == "open":
            opened += 1
            half[opened] = False
            record = Record(kind, call=opened, layer=draw(places), method=draw(names), metadata=draw(metadata))
        elif kind == "advance":
            record = Record(kind, cause=draw(st.sampled_from(ADVANCE_CAUSES)))
        elif kind == "set":
            rate = st.one_of(st.none(), st.integers(0, MAX_RATE_PERMILLE))
            record = Record(kind, rate_permille=draw(rate), paused=draw(st.sampled_from((None, True, False))))
        elif kind == "of_call":
            record = draw_of_call(draw, half)
        callbacks = draw(st.one_of(st.none(), st.integers(0, 1 << 40)))
        records.append(replace(record, ns=ns, events=events, sequence=number, callbacks=callbacks))
    end = Record("end", ns=ns, events=events, sequence=len(records) + 1, sha256=draw(digests))
    return [*records, end]


def draw_of_call(draw: st.DrawFn, half: dict[int, bool]) -> Record:
    """Returns a record that one of the open calls can get."""
    call = draw(st.sampled_from(sorted(half)))
    ends = ["cancel", "deadline", "answered"]
    kind = draw(st.sampled_from(ends if half[call] else [*ends, "message", "half_close"]))
    if kind == "half_close":
        half[call] = True
    elif kind in ends:
        del half[call]
    if kind == "message":
        return Record(kind, call=call, data=draw(st.binary(max_size=50)))
    if kind == "cancel":
        return Record(kind, call=call, cause=draw(st.sampled_from(CANCEL_CAUSES)))
    if kind == "answered":
        return Record(kind, call=call, code="OK", messages=draw(st.integers(0, 9)), sha256=draw(digests))
    return Record(kind, call=call)


@contextmanager
def written(records: list[Record]) -> Iterator[Path]:
    """Yields the path of a log with the records."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        log = InputLog(path, HEADER)
        for record in records:
            log.write(record)
        log.close()
        yield path


def read(path: Path) -> tuple[list[Record], LaminaError | None]:
    """Returns the records that are believed, and the error with which reading ended; None for a whole log."""
    records: list[Record] = []
    try:
        reader = InputLogReader(path)
        try:
            records.extend(iter(reader))  # extend keeps what came before an error
        finally:
            reader.close()
    except LaminaError as error:
        return records, error
    return records, None


@given(logs())
def test_a_log_round_trips(records: list[Record]) -> None:
    """Every log that can be written is read back, record by record, to the last bit."""
    with written(records) as path:
        assert read(path) == (records, None)


@given(logs(), st.data())
def test_a_log_cut_at_any_byte_yields_a_prefix(records: list[Record], data: st.DataObject) -> None:
    """Whatever was cut off, what is believed is the beginning of what was written, and the cut is named."""
    with written(records) as path:
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        found, error = read(path)
    assert found == records[: len(found)]
    assert error is not None and error.reason == "INPUT_LOG_CUT"


@given(logs(), st.data())
def test_a_log_with_changed_bytes_is_believed_or_refused(records: list[Record], data: st.DataObject) -> None:
    """Bytes replaced, removed or put in: the reader ends with its own errors alone, said in few words."""
    with written(records) as path:
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 5))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        path.write_bytes(content)
        _, error = read(path)
    assert error is None or (error.reason in REASONS and len(error.message) < 1000)


@given(st.binary(max_size=300))
def test_garbage_is_refused(content: bytes) -> None:
    """No file of random bytes is an input log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(content)
        found, error = read(path)
    assert found == [] and error is not None and error.reason in REASONS


@given(logs(), st.data(), plain)
def test_any_value_in_any_field_is_believed_or_refused(records: list[Record], data: st.DataObject, value: Any) -> None:
    """A field with a value of any kind, a missing one or one too many leads to no other error than the reader's."""
    with written(records) as path:
        lines = path.read_text().splitlines()
        at = data.draw(st.integers(0, len(lines) - 1))
        entries = json.loads(lines[at])
        key = data.draw(st.sampled_from([*entries, "extra"]))
        entries[key] = value
        if data.draw(st.booleans()):
            del entries[key]
        lines[at] = json.dumps(entries)
        path.write_text("\n".join(lines) + "\n")
        _, error = read(path)
    assert error is None or (error.reason in REASONS and len(error.message) < 1000)


PLACES = st.sampled_from(["timed", "timed", "timed", "mmu"])
NAMES = st.sampled_from(["Echo", "Hold", "Talk", "WatchNothing", "Missing"]).map(lambda name: f"/{SERVICE}/{name}")


@settings(max_examples=settings().max_examples * 3 // 10)  # each one starts a stack
@given(logs(PLACES, NAMES))
def test_a_log_that_is_believed_is_replayed_or_refused(records: list[Record]) -> None:
    """Inputs in any order that a reader lets through do nothing to a stack but what calls do, and never break it."""
    with written([replace(record, callbacks=None) for record in records]) as path:
        try:
            played, _, differences = replayed(path)
        except LaminaError as error:
            assert error.reason == "INPUT_LOG_FOREIGN" and error.next_step
            return
    assert played.records == len(records) and played.now_ns == records[-1].ns
    assert {error.reason for error in differences} <= {"REPLAY_DIVERGED"}
