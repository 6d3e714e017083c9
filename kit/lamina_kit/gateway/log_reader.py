"""Reads an input log back, line by line and within bounds; the writer is `gateway/log.py`.

A log is somebody else's file: each line is checked as a whole (kind, types, ranges, order, calls that are open) before
it is believed. A log whose process was killed ends without its end mark, perhaps in the middle of a line: what stands
before that is whole and can be replayed when the caller asks for it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import grpc

from lamina_kit.checks import shown
from lamina_kit.clock_control import MAX_RATE_PERMILLE, MAX_TIME_NS
from lamina_kit.errors import DataLoss, LaminaError, NotFound
from lamina_kit.gateway.log import (
    ADVANCE_CAUSES,
    CANCEL_CAUSES,
    FORMAT,
    FORMAT_VERSION,
    KINDS,
    OF_CALLS,
    Header,
    Record,
)
from lamina_kit.rpc.inproc.call import MAX_MESSAGE, Pairs, pairs

MAX_LINE = 12 << 20
"""Longest line in bytes: a message of 8 MiB in base64, and its record."""
MAX_CALLS = 100_000
"""Most calls that may be open at one time."""

_METHOD = re.compile(r"/[A-Za-z0-9_.]{1,255}/[A-Za-z0-9_]{1,255}")
_LAYER = re.compile(r"([a-z]([-a-z0-9]{0,61}[a-z0-9])?/)?[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CODES = tuple(code.name for code in grpc.StatusCode)
_TEXT = 1 << 20
_MAX_METADATA = 32 << 10
_FIELDS = {
    "open": ("call", "layer", "method", "metadata"),
    "message": ("call", "data"),
    "half_close": ("call",),
    "cancel": ("call", "cause"),
    "deadline": ("call",),
    "answered": ("call", "code", "messages", "sha256"),
    "advance": ("cause",),
    "set": ("rate_permille", "paused"),
    "collect": (),
    "stop": (),
    "end": ("sha256",),
}


class InputLogReader:
    """An input log that is being read: `header`, then the records one after the other."""

    def __init__(self, path: Path) -> None:
        """Opens the log and reads its header.

        Raises:
            NotFound: `INPUT_LOG_NOT_FOUND`, there is no such file, or it cannot be read.
            DataLoss: `INPUT_LOG_MALFORMED`, it is no input log; `INPUT_LOG_FORMAT_UNKNOWN`, a newer Lamina wrote it;
                `INPUT_LOG_CUT`, it ends within its header.
        """
        self.path = path
        self.line = 0
        """Number of the line that was read last, from 1."""
        self.ended = False
        """Whether the end mark was read."""
        self._sequence = 0
        self._ns = 0
        self._events = 0
        self._calls = 0
        self._open: dict[int, bool] = {}
        """Calls that may still get records, with whether the client has closed its half."""
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise NotFound(
                f"The input log {path} cannot be read: {error.strerror or error}.",
                reason="INPUT_LOG_NOT_FOUND",
                next_step="Check the path; a stack writes its log to the file that `lamina up --input-log` names.",
            ) from error
        try:
            self.header = self._header()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._file.close()

    def __iter__(self) -> Iterator[Record]:
        """Yields the records in order, the end mark last.

        Raises:
            DataLoss: `INPUT_LOG_MALFORMED` or `INPUT_LOG_CUT`, with the number of the line.
        """
        while not self.ended:
            entries = self._entries()
            if entries is None:
                raise self._cut("ends without its end mark: the process that wrote it was killed, or it was cut")
            record = self._record(entries)
            self._follow(record)
            yield record
        if self._file.read(1):
            self.line += 1
            raise self._wrong("stands behind the end mark")

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _entries(self) -> dict[str, Any] | None:
        """Returns the next line as an object; None at the end of the file."""
        raw = self._file.readline(MAX_LINE + 1)
        if not raw:
            return None
        self.line += 1
        if len(raw) > MAX_LINE:
            raise self._wrong(f"has more than {MAX_LINE} bytes")
        if not raw.endswith(b"\n"):
            raise self._cut("ends in the middle of a line")
        try:
            entries = json.loads(raw.decode("ascii"), parse_constant=_refuse, parse_float=_refuse)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"is not JSON: {str(error)[:200]}") from None
        if not isinstance(entries, dict):
            raise self._wrong("is no JSON object")
        return entries

    def _header(self) -> Header:
        entries = self._entries()
        if entries is None:
            raise self._cut("is empty")
        if entries.get("format") != FORMAT:
            raise self._wrong(f"is not the header of an input log: it has no format {FORMAT!r}")
        version = self._whole(entries, "format_version", 1, 1 << 31)
        if version != FORMAT_VERSION:
            raise DataLoss(
                f"The input log {self.path} has format version {version}; this Lamina reads {FORMAT_VERSION}.",
                reason="INPUT_LOG_FORMAT_UNKNOWN",
                next_step="Replay it with the version of Lamina that wrote it.",
            )
        configuration, software = entries.get("configuration"), entries.get("software")
        if not isinstance(configuration, dict):
            raise self._wrong("has no configuration")
        if not isinstance(software, dict) or not all(isinstance(value, str) for value in software.values()):
            raise self._wrong("has no list of software")
        header = Header(
            version=self._text(entries, "version"),
            revision=self._text(entries, "revision"),
            configuration=configuration,
            hash_seed=self._text(entries, "hash_seed"),
            software=software,
            state=self._one_of(entries, "state", ("empty", "kept")),
        )
        if header.digest != self._text(entries, "digest"):
            raise self._wrong("has a digest that is not that of its configuration")
        return header

    # ── records ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _record(self, entries: dict[str, Any]) -> Record:
        kind = self._one_of(entries, "kind", KINDS)
        known = {"ns", "seq", "events", "kind", *_FIELDS[kind]}
        callbacks = None
        if "callbacks" in entries:
            callbacks = self._whole(entries, "callbacks", 0, 1 << 62)
            known.add("callbacks")
        if entries.keys() != known:
            odd = ", ".join(sorted(shown(key) for key in entries.keys() ^ known)[:5])
            raise self._wrong(f"is a {kind} record with missing or unknown fields: {odd}")
        fields: dict[str, Any] = {}
        if kind in OF_CALLS:
            fields["call"] = self._whole(entries, "call", 1, 1 << 53)
        if kind == "open":
            fields["layer"] = self._matching(entries, "layer", _LAYER)
            fields["method"] = self._matching(entries, "method", _METHOD)
            fields["metadata"] = self._metadata(entries["metadata"])
        elif kind == "message":
            fields["data"] = self._bytes(entries["data"], "data", MAX_MESSAGE)
        elif kind == "cancel":
            fields["cause"] = self._one_of(entries, "cause", CANCEL_CAUSES)
        elif kind == "advance":
            fields["cause"] = self._one_of(entries, "cause", ADVANCE_CAUSES)
        elif kind == "set":
            fields |= self._setting(entries)
        elif kind == "answered":
            fields["code"] = self._one_of(entries, "code", _CODES)
            fields["messages"] = self._whole(entries, "messages", 0, 1 << 53)
        if kind in ("answered", "end"):
            fields["sha256"] = self._matching(entries, "sha256", _SHA256)
        return Record(
            kind,
            ns=self._whole(entries, "ns", 0, MAX_TIME_NS),
            sequence=self._whole(entries, "seq", 1, 1 << 53),
            events=self._whole(entries, "events", 0, 1 << 53),
            callbacks=callbacks,
            **fields,
        )

    def _setting(self, entries: dict[str, Any]) -> dict[str, Any]:
        rate, paused = entries["rate_permille"], entries["paused"]
        if rate is not None:
            rate = self._whole(entries, "rate_permille", 0, MAX_RATE_PERMILLE)
        if paused is not None and not isinstance(paused, bool):
            raise self._wrong("has a paused that is neither true nor false")
        return {"rate_permille": rate, "paused": paused}

    def _follow(self, record: Record) -> None:
        """Checks that a record can follow those before it."""
        if record.sequence != self._sequence + 1:
            raise self._wrong(f"has sequence {record.sequence} behind {self._sequence}: records are missing or moved")
        if record.ns < self._ns:
            raise self._wrong(f"goes back in time, from {self._ns} ns to {record.ns} ns")
        if record.events < self._events:
            raise self._wrong(f"has {record.events} events behind {self._events}")
        self._sequence, self._ns, self._events = record.sequence, record.ns, record.events
        if record.kind == "open":
            if record.call != self._calls + 1:
                raise self._wrong(f"opens call {record.call} behind call {self._calls}")
            if len(self._open) >= MAX_CALLS:
                raise self._wrong(f"opens more than {MAX_CALLS} calls at one time")
            self._calls = record.call
            self._open[record.call] = False
        elif record.kind in OF_CALLS:
            self._of_open_call(record)
        elif record.kind == "end":
            self.ended = True

    def _of_open_call(self, record: Record) -> None:
        if record.call not in self._open:
            raise self._wrong(f"is a {record.kind} of call {record.call}, which is not open")
        closed = self._open[record.call]
        if record.kind in ("cancel", "deadline", "answered"):
            del self._open[record.call]
        elif closed:
            raise self._wrong(f"is a {record.kind} of call {record.call}, whose client has closed its half")
        elif record.kind == "half_close":
            self._open[record.call] = True

    # ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _whole(self, entries: dict[str, Any], key: str, low: int, high: int) -> int:
        value = entries.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(f"has a {key} that is no whole number from {low} to {high}")
        return value

    def _text(self, entries: dict[str, Any], key: str) -> str:
        value = entries.get(key)
        if not isinstance(value, str) or len(value) > _TEXT:
            raise self._wrong(f"has a {key} that is no text")
        return value

    def _one_of(self, entries: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
        value = entries.get(key)
        if not isinstance(value, str) or value not in allowed:
            raise self._wrong(f"has the {key} {shown(value)}, not one of {', '.join(allowed)}")
        return value

    def _matching(self, entries: dict[str, Any], key: str, pattern: re.Pattern[str]) -> str:
        value = entries.get(key)
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise self._wrong(f"has the {key} {shown(value)}, which is none")
        return value

    def _bytes(self, value: Any, key: str, limit: int) -> bytes:
        if not isinstance(value, str):
            raise self._wrong(f"has a {key} that is no base64 text")
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._wrong(f"has a {key} that is not base64: {error}") from None
        if len(raw) > limit:
            raise self._wrong(f"has a {key} of {len(raw)} bytes, more than {limit}")
        return raw

    def _metadata(self, value: Any) -> Pairs:
        if not isinstance(value, list):
            raise self._wrong("has metadata that are no list")
        found: list[tuple[str, str | bytes]] = []
        for entry in value:
            if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
                raise self._wrong("has metadata that are no list of pairs")
            key, content = entry
            if isinstance(content, dict) and list(content) == ["base64"]:
                content = self._bytes(content["base64"], "metadata value", _MAX_METADATA)
            elif not isinstance(content, str):
                raise self._wrong("has metadata that are neither text nor base64")
            found.append((key, content))
        try:
            return pairs(tuple(found))
        except ValueError as error:
            raise self._wrong(str(error)) from None

    # ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _wrong(self, what: str) -> LaminaError:
        return DataLoss(
            f"Line {self.line} of the input log {self.path} {what}.",
            reason="INPUT_LOG_MALFORMED",
            next_step="Take the log as it was written; `lamina replay --until-cut` replays what stands before.",
            line=self.line,
        )

    def _cut(self, what: str) -> LaminaError:
        return DataLoss(
            f"The input log {self.path} {what}, behind line {self.line}.",
            reason="INPUT_LOG_CUT",
            next_step="`lamina replay --until-cut` replays what is whole.",
            line=self.line,
        )


def _refuse(text: str) -> Any:
    raise ValueError(f"{text[:40]} is no value of this format")
