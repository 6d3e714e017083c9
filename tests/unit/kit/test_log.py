"""Log lines: one JSON object each, whoever writes them, with the layer and host that the work is done for."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lamina_kit.clock import RealClock
from lamina_kit.layer.state import LayerState
from lamina_kit.rng import Rng
from lamina_kit.telemetry import log, trace


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where JSON lines of a process that serves the MMU of h1 go."""
    made = io.StringIO()
    log.configure(json=True, stream=made, layer="mmu", host="h1")
    yield made
    log.configure()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Returns the lines, each of which has to be an object."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_has_the_same_first_keys(stream: io.StringIO) -> None:
    """Outside any work the process says what it is, and the trace is empty."""
    log.logger("mmu").info("layer.started", start=1)
    assert lines(stream) == [
        {"event": "layer.started", "host": "h1", "layer": "mmu", "level": "info", "start": 1, "trace_id": ""}
    ]


def test_a_part_of_a_layer_is_named_beside_it(stream: io.StringIO) -> None:
    """`layer` is always a layer."""
    log.logger("session").warning("session.broken")
    assert (lines(stream)[0]["layer"], lines(stream)[0]["part"]) == ("mmu", "session")


def test_work_for_another_host_is_marked_with_it(stream: io.StringIO) -> None:
    """In one process with several hosts the lines say for which one the work is done."""
    state = LayerState("vswitch", "h2", RealClock(), Rng(1))
    with trace.working_for(state.recorder):
        log.logger("vswitch").info("port.up")
    with trace.begin("t", state.recorder) as context:
        log.logger("vswitch").info("port.down")
    log.logger("mmu").info("after")
    first, second, third = lines(stream)
    assert (first["layer"], first["host"], first["trace_id"]) == ("vswitch", "h2", "")
    assert second["trace_id"] == context.trace_id
    assert (third["layer"], third["host"]) == ("mmu", "h1")


def test_tracebacks_and_other_libraries_stay_on_one_line(stream: io.StringIO) -> None:
    """What spans lines as text is one key; a library's warning has the keys of our own lines."""
    try:
        raise KeyError("defect")
    except KeyError as error:
        log.logger("mmu").error("call.crashed", exc_info=error)
        logging.getLogger("asyncio").error("two\nlines", exc_info=error)
    logging.getLogger("asyncio").info("not shown")
    ours, theirs = lines(stream)
    assert "KeyError" in ours["exception"]
    assert "KeyError" in theirs["exception"]
    assert (theirs["event"], theirs["logger"], theirs["layer"], theirs["level"]) == (
        "two\nlines",
        "asyncio",
        "mmu",
        "error",
    )


def test_a_logger_follows_the_configuration_that_holds(stream: io.StringIO) -> None:
    """Level and form of loggers that exist change with `configure`."""
    logger = log.logger("mmu")
    logger.debug("not.shown")
    text = io.StringIO()
    log.configure(level="debug", stream=text)
    logger.debug("page.kept", frame=3)
    assert stream.getvalue() == ""
    assert "page.kept" in text.getvalue()
    assert "frame=3" in text.getvalue()
    assert not text.getvalue().startswith("{")


def test_the_console_form_has_no_empty_keys() -> None:
    """Lines for people name a host only when there is one, and no empty trace."""
    text = io.StringIO()
    log.configure(stream=text)
    log.logger("mmu").info("page.kept")
    log.configure()
    assert "host" not in text.getvalue()
    assert "trace_id" not in text.getvalue()


def test_tracebacks_for_people_are_plain_and_show_no_values() -> None:
    """The same lines where rich is installed, which would show local variables, and it is not imported for them."""
    code = """
import sys
from lamina_kit.telemetry import log
assert "rich" not in sys.modules
log.configure(stream=sys.stdout)
try:
    token = str(41 + 1) + "secret"
    raise KeyError("x")
except KeyError as error:
    log.logger("mmu").error("call.crashed", exc_info=error)
try:
    import rich
except ModuleNotFoundError as error:
    assert "halted" not in str(error), "it is kept from others too"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Traceback (most recent call last):" in done.stdout and "KeyError: 'x'" in done.stdout
    assert "42secret" not in done.stdout
