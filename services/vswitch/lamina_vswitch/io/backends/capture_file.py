"""A backend of capture files: one is played into the switch, another gets what leaves by the port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from lamina_kit.checks import Checks
from lamina_kit.clock import Clock
from lamina_kit.errors import LaminaError
from lamina_vswitch.domain.backend.capture_reader import CaptureReader, Malformed, Stamped
from lamina_vswitch.domain.backend.definition import BackendState, CaptureFile
from lamina_vswitch.domain.capture import pcapng
from lamina_vswitch.domain.offload.features import Takes
from lamina_vswitch.io.backends.port_end import PortEnd
from lamina_vswitch.io.backends.refusals import refusal

_READ_BYTES = 64 << 10
_HEAD_BYTES = 64
_OUTBOUND = 2


class FileBackend:
    """Plays `input_path` once, from its beginning, and writes `output_path` as pcapng.

    `resumed` says that the service started again: the output gets a further section then, where a new one replaces it.
    """

    takes: Takes | None = None

    def __init__(
        self, end: PortEnd, wanted: CaptureFile, port: str, clock: Clock, ended: Callable[[], None], *, resumed: bool
    ) -> None:
        self.state, self.detail = BackendState.OPEN, ""
        self._end, self._clock, self._ended = end, clock, ended
        self._keeps_time = wanted.original_timing
        self._input = _readable(wanted.input_path) if wanted.input_path else None
        self._output: IO[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        if wanted.output_path:
            try:
                self._output = _writable(wanted.output_path, port, "ab" if resumed else "wb")
            except BaseException:
                self.close()
                raise

    def start(self) -> None:
        """Begin to play."""
        if self._input is not None:
            self._task = asyncio.get_running_loop().create_task(self._play(self._input))

    def skip(self) -> None:
        """Play nothing: it was played to its end before the service started again."""
        self._close_input()
        self.state = BackendState.ENDED

    def close(self) -> None:
        """Close the files. Idempotent."""
        self._end.close()
        if self._task is not None:
            self._task.cancel()
        self._close_input()
        output, self._output = self._output, None
        if output is not None:
            output.close()

    def deliver(self, frames: Sequence[bytes]) -> int:
        """Write frames; without an output they are counted only."""
        if self._output is not None:
            now_ns = self._clock.wall_ns() if self._clock.mode == "real" else self._clock.now_ns()
            blocks = [pcapng.enhanced_packet(0, now_ns, frame, len(frame), _OUTBOUND) for frame in frames]
            try:
                _write(self._output, b"".join(blocks))
            except OSError as error:  # nothing that comes behind half a block could be read
                self._output.close()
                self._output = None
                if self._task is not None:
                    self._task.cancel()  # it would read on in a file that is closed
                self._fail(f"writing failed: {error.strerror}")
                return 0
        return len(frames) if self._output is not None or self.state is not BackendState.FAILED else 0

    def withdraw(self) -> list[bytes]:
        """Return nothing: what was taken is written."""
        return []

    def link_changed(self, up: bool) -> None:
        """Do nothing: what is played while the link is down is dropped."""

    def removed(self) -> None:
        """Do nothing: who keeps the backends closes it."""

    async def _play(self, source: IO[bytes]) -> None:
        reader = CaptureReader()
        begin: tuple[int, int] | None = None
        try:
            while data := source.read(_READ_BYTES):
                stamped = reader.feed(data)
                if self._keeps_time and stamped:
                    begin = begin or (stamped[0].time_ns, self._clock.now_ns())
                    await self._in_time(stamped, begin)
                else:
                    self._end.transmit([each.frame for each in stamped])
                await asyncio.sleep(0)  # lets the receiving streams send before the next frames fill their queues
            reader.finish()
        except (Malformed, OSError) as error:
            self._fail(f"{source.name} {error}" if isinstance(error, Malformed) else f"reading failed: {error}")
            return
        self._close_input()
        self.state = BackendState.ENDED
        try:
            self._ended()
        except LaminaError as error:
            self.detail = f"it would be played again after a restart: {error.message}"

    async def _in_time(self, stamped: list[Stamped], begin: tuple[int, int]) -> None:
        """Send frames at their distances from the first one; those of one instant go together."""
        first_ns, start_ns = begin
        due: list[bytes] = []
        for time_ns, frame in stamped:
            left = start_ns + time_ns - first_ns - self._clock.now_ns()
            if left > 0:
                self._end.transmit(due)
                due = []
                await self._clock.sleep_ns(left)
            due.append(frame)
        self._end.transmit(due)

    def _fail(self, why: str) -> None:
        self._close_input()
        self.state, self.detail = BackendState.FAILED, why

    def _close_input(self) -> None:
        source, self._input = self._input, None
        if source is not None:
            source.close()


def _readable(path: str) -> IO[bytes]:
    """Return an open file that begins as a capture of Ethernet frames does."""
    _check_no_pipe(path, "backend.file.input_path")
    try:
        found = Path(path).open("rb")  # noqa: SIM115 (closed by the backend)
    except OSError as error:
        raise refusal(f"file {path}", error) from error
    reader = CaptureReader()
    try:
        reader.feed(found.read(_HEAD_BYTES))
        found.seek(0)
    except Malformed as error:
        found.close()
        with Checks() as check:
            check.that(False, "backend.file.input_path", str(error))
    except OSError as error:
        found.close()
        raise refusal(f"file {path} to be read from its beginning", error) from error
    return found


def _writable(path: str, port: str, mode: str) -> IO[bytes]:
    _check_no_pipe(path, "backend.file.output_path")
    try:
        made: IO[bytes] = open(path, mode, buffering=0)  # noqa: SIM115 (closed by the backend)
    except OSError as error:
        raise refusal(f"file {path}", error) from error
    try:
        _write(made, pcapng.section_header("lamina vswitch") + pcapng.interface_description(port, "", 0))
    except OSError as error:
        made.close()
        raise refusal(f"file {path}", error) from error
    return made


def _write(output: IO[bytes], data: bytes) -> None:
    """Write all of it: a disk that gets full takes a part first."""
    left = memoryview(data)
    while left:
        left = left[output.write(left) :]


def _check_no_pipe(path: str, field: str) -> None:
    """Refuse a pipe, at which opening it would hold up the service until somebody opens its other end."""
    with Checks() as check:
        check.that(not Path(path).is_fifo(), field, "is a pipe, and no file")
