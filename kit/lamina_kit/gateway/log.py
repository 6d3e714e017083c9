"""The input log: everything that the outside did to a stack on a clock that is not the machine's.

A stack on a virtual loop is a function of its seed, its configuration and its inputs. The log holds all three, as JSON
lines: a header, then a record an input, then an end mark. `gateway/log_reader.py` reads it back.

    {"format":"lamina-input","format_version":1,"version":"0.1.0","revision":"1.0","digest":"…","configuration":{…},…}
    {"ns":12000,"seq":1,"events":40,"kind":"open","call":1,"layer":"orchestrator","method":"/…","metadata":[…]}
    {"ns":12000,"seq":2,"events":40,"kind":"message","call":1,"data":"CgVoZWxsbw=="}
    {"ns":3600000012000,"seq":3,"events":91,"kind":"advance","cause":"asked"}
    {"ns":3600000012000,"seq":4,"events":91,"kind":"end","sha256":"…"}

A record stands for: run until quiescent at `ns`, then do this; one with `callbacks` for: run until that many callbacks
have run in all, since the stack did not become quiescent. `collect` is a run of Python's garbage collector, which
finalizers make an input. Two things are no inputs but let a replay notice that it goes another way, close behind the
fork: `events`, the number of events that the stack had recorded before the record, and `answered`, how a call ended
and a digest of what it was answered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lamina_kit.errors import FailedPrecondition, ResourceExhausted
from lamina_kit.rpc.inproc.call import Pairs

FORMAT = "lamina-input"
FORMAT_VERSION = 1
MAX_LOG_BYTES = 4 << 30
CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
END_ROOM = 4096
"""Bytes below the limit that are kept for the records with which a log ends."""

KINDS = ("open", "message", "half_close", "cancel", "deadline", "answered", "advance", "set", "collect", "stop", "end")
OF_CALLS = ("open", "message", "half_close", "cancel", "deadline", "answered")
CANCEL_CAUSES = ("client", "slow_reader", "refused")
ADVANCE_CAUSES = ("asked", "paced", "free")


@dataclass(frozen=True)
class Header:
    """What a stack is a function of, besides its inputs."""

    version: str
    """Version of Lamina."""
    revision: str
    """Revision of the contracts."""
    configuration: Mapping[str, Any]
    """What the stack was started with, as plain JSON: hosts, engines, the configuration file's text, overrides, clock,
    rate, seed. `digest` is taken of it."""
    hash_seed: str
    """`PYTHONHASHSEED` of the process."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Versions of what the stack runs on: Python, protobuf, the emulator. For people; a difference is a warning."""
    state: str = "empty"
    """`empty`: the stack began without any kept state. `kept`: it found some, which the log does not hold."""

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration, in hexadecimal."""
        return hashlib.sha256(canonical(self.configuration).encode()).hexdigest()

    def line(self) -> str:
        """Returns the header as a line."""
        entries = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "version": self.version,
            "revision": self.revision,
            "digest": self.digest,
            "hash_seed": self.hash_seed,
            "state": self.state,
            "software": dict(self.software),
            "configuration": dict(self.configuration),
        }
        return compact(entries) + "\n"


@dataclass(frozen=True)
class Record:
    """One input. Which of the fields have a meaning depends on the kind; the others keep their defaults."""

    kind: str
    """One of `KINDS`."""
    ns: int = 0
    sequence: int = 0
    events: int = 0
    callbacks: int | None = None
    """How many callbacks the loop had run, for an input of a stack that did not become quiescent; else None."""
    call: int = 0
    """Number of the call, from 1 in the order of their opening; 0 for a record that is of none."""
    layer: str = ""
    """`open`: the layer whose port it came to, for example `mmu`; on a further host of a stack, `h2/mmu`."""
    method: str = ""
    metadata: Pairs = ()
    data: bytes = b""
    cause: str = ""
    """`cancel` and `advance`: why."""
    rate_permille: int | None = None
    paused: bool | None = None
    code: str = ""
    """`answered`: name of the status code with which the call ended."""
    messages: int = 0
    """`answered`: number of messages that went out."""
    sha256: str = ""
    """Digest in hexadecimal; `end`: of the event log, `answered`: of the messages that went out (`AnswerTally`)."""

    def line(self) -> str:
        """Returns the record as a line."""
        entries: dict[str, Any] = {"ns": self.ns, "seq": self.sequence, "events": self.events, "kind": self.kind}
        if self.callbacks is not None:
            entries["callbacks"] = self.callbacks
        if self.kind in OF_CALLS:
            entries["call"] = self.call
        if self.kind == "open":
            entries |= {"layer": self.layer, "method": self.method}
            entries["metadata"] = [
                [key, value if isinstance(value, str) else {"base64": encoded(value)}] for key, value in self.metadata
            ]
        elif self.kind == "message":
            entries["data"] = encoded(self.data)
        elif self.kind in ("cancel", "advance"):
            entries["cause"] = self.cause
        elif self.kind == "set":
            entries |= {"rate_permille": self.rate_permille, "paused": self.paused}
        elif self.kind == "answered":
            entries |= {"code": self.code, "messages": self.messages, "sha256": self.sha256}
        elif self.kind == "end":
            entries["sha256"] = self.sha256
        return compact(entries) + "\n"


class InputLog:
    """Writes an input log; each record is with the operating system before the stack sees the input."""

    def __init__(self, path: Path, header: Header, limit: int = MAX_LOG_BYTES) -> None:
        """Begins the log at `path`, replacing what is there. It holds what callers send, so only its owner may read it.

        Raises:
            FailedPrecondition: `INPUT_LOG_UNWRITABLE`, with what the system says.
        """
        self.path = path
        self._limit = limit
        self._written = 0
        try:
            self._file: IO[bytes] = os.fdopen(os.open(path, CREATE, 0o600), "wb", buffering=0)
            if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                os.fchmod(self._file.fileno(), 0o600)  # a file that was there had the rights of its own time
            self._put(header.line())
        except OSError as error:
            raise unwritable(path, error) from error

    def has_room(self, record: Record) -> bool:
        """Says whether a record fits below the limit, with room for the end."""
        size = 1024 + 2 * (len(record.data) + sum(len(key) + len(value) for key, value in record.metadata))
        return self._written + size + END_ROOM <= self._limit

    def check_room(self, record: Record) -> None:
        """Raises `ResourceExhausted` `INPUT_LOG_FULL` when a record does not fit."""
        if not self.has_room(record):
            raise ResourceExhausted(
                f"The input log {self.path} has {self._written} bytes, and {self._limit} is its limit.",
                reason="INPUT_LOG_FULL",
                next_step="Start the stack anew: a run whose inputs are not logged could not be replayed.",
            )

    def write(self, record: Record) -> None:
        """Appends a record.

        Raises:
            FailedPrecondition: `INPUT_LOG_UNWRITABLE`, with what the system says.
        """
        try:
            self._put(record.line())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self) -> None:
        """Closes the file. Idempotent."""
        self._file.close()

    def _put(self, line: str) -> None:
        raw = memoryview(line.encode("ascii"))
        while raw:
            raw = raw[self._file.write(raw) or 0 :]
        self._written += len(line)


class EventTally:
    """Counts the events of a stack and digests them, as they happen; what two runs are compared by."""

    def __init__(self, then: Callable[[str], object] | None = None) -> None:
        """`then` is given each line, for a file."""
        self.count = 0
        self._then = then
        self._digest = hashlib.sha256()

    def add(self, line: str) -> None:
        """Takes the next event as its line of JSON."""
        self.count += 1
        self._digest.update(line.encode())
        if self._then is not None:
            self._then(line)

    @property
    def sha256(self) -> str:
        """The digest of all lines so far, in hexadecimal."""
        return self._digest.hexdigest()


class AnswerTally:
    """Counts and digests what a call is answered: each message behind its length, so that no two answers are alike."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, message: bytes) -> None:
        """Takes the next message."""
        self.count += 1
        self._digest.update(len(message).to_bytes(8, "big"))
        self._digest.update(message)

    def record(self, call: int, code: str) -> Record:
        """Returns the record of the call's end."""
        return Record("answered", call=call, code=code, messages=self.count, sha256=self._digest.hexdigest())


def compact(value: Any) -> str:
    """Returns a value as JSON without blanks, ASCII only."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def canonical(value: Any) -> str:
    """Returns a value as JSON of which two equal values have the same: keys sorted, no blanks, ASCII only."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def encoded(raw: bytes) -> str:
    """Returns bytes as base64 text."""
    return base64.b64encode(raw).decode()


def unwritable(path: Path, error: OSError) -> FailedPrecondition:
    """Returns the error of a log that cannot be written."""
    return FailedPrecondition(
        f"The input log {path} cannot be written: {error.strerror or error}.",
        reason="INPUT_LOG_UNWRITABLE",
        next_step="Name another file with --input-log, or make room.",
    )
