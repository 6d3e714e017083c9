"""The shell of one service process: everything around a layer's service when it runs by itself.

    # lamina_mmu/__main__.py
    sys.exit(main(Role("mmu", build, MmuConfig, calls=("hardware",), needs=("hardware",), maps_bus=True)))

The life of a process, in order; `docs/adr/0011-processes-and-power.md` says why:

    options, configuration          wrong ones: exit status 2
    lock on the state directory     taken: 3, with the pid that has it
    serve                           busy port: 3; from here on calls answer UNAVAILABLE and say who is missing
    wait for the layers below       another revision: 3
    check the memory bus            missing or foreign: 3, with path, host and boot id
    start the service               calls reach it, health says SERVING
    … until SIGTERM or SIGINT       drain, stop: 0
    … or another boot below         the host lost power: the service is stopped and built anew (`lives.py`)

The kit knows no layer: what a layer is called, calls and needs stands in its `__main__.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lamina_kit import config as configuration
from lamina_kit import log
from lamina_kit.channel import Channel, connect
from lamina_kit.engines import LAYERS, load_engine
from lamina_kit.errors import LaminaError
from lamina_kit.fault_channel import planned
from lamina_kit.fault_plan import FaultPlan
from lamina_kit.layer import LayerState
from lamina_kit.lives import Lives, Role
from lamina_kit.parent import end_with
from lamina_kit.process_clock import JoinedClock, end_time, ground_clock
from lamina_kit.process_options import Options, read
from lamina_kit.rng import Rng
from lamina_kit.service import Served, serve
from lamina_kit.state_lock import StateLock

__all__ = ["CANNOT_START", "DEFECT", "MISCONFIGURED", "STOPPED", "Role", "main"]

STOPPED, DEFECT, MISCONFIGURED, CANNOT_START = 0, 1, 2, 3
"""Exit statuses. 2: wrong flags or configuration; 3: a port, the state, the bus or a layer below is not as needed."""
STOP_LIMIT_S = 30
"""How long stopping in order may take before the process is ended all the same."""
LAST_WORDS_S = 0.1
"""How long answers that are on their way have before the sockets close."""


def main(role: Role, words: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Runs the process of a layer. Returns its exit status."""
    environ = os.environ if environ is None else environ
    try:
        options = read(role.layer, role.calls, sys.argv[1:] if words is None else words, environ)
        config = _configuration(role, options, environ)
    except LaminaError as error:
        return _report(error, MISCONFIGURED)
    try:
        with StateLock(options.state_dir, role.layer):
            if options.parent is not None:
                end_with(options.parent)
            clock = JoinedClock() if role.calls else ground_clock(options.state_dir)
            log.configure(json=options.log_form == "json", level=options.log_level, wall_ns=clock.wall_ns)
            asyncio.run(Process(role, options, config, clock).run())
            if not role.calls:
                end_time(options.state_dir)
            return STOPPED
    except LaminaError as error:
        return _report(error, CANNOT_START)


def _configuration(role: Role, options: Options, environ: Mapping[str, str]) -> Any:
    if options.config is not None:
        configuration.check_sections(options.config, LAYERS)
    load_engine(role.layer, options.engine)
    return configuration.load(role.layer, role.config, options.config, environ)


def _report(error: LaminaError, status: int) -> int:
    print(f"{error.code} {error.reason}: {error}", file=sys.stderr, flush=True)
    return status


class Process:
    """One process at work. What operations add (metrics, certificates, reload) hangs on the steps of `run`."""

    def __init__(self, role: Role, options: Options, config: Any, clock: JoinedClock) -> None:
        self._role = role
        self._options = options
        self._config = config
        self._clock = clock
        self._rng = Rng(int.from_bytes(os.urandom(8)) if options.seed is None else options.seed)
        self._log = log.logger(role.layer)

    async def run(self) -> None:
        """Serves until a signal, through every loss of power below."""
        options, role = self._options, self._role
        rng = self._rng.child(role.layer)
        state = role.state(options, self._clock, rng)
        channels = {layer: connect(target) for layer, target in options.upstreams.items()}
        served: Served | None = None
        try:
            through = {layer: self._planned(channel, layer, state) for layer, channel in channels.items()}
            lives = Lives(role, options, self._config, state, rng, through, self._clock.join)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._told_to_stop, lives)
            served = await serve(lives.board, options.listen, lives.state, serving=False)
            self._log.info("process.serves", addresses=list(served.addresses), pid=os.getpid())
            await lives.run(served.set_serving)
        finally:
            if served is not None:
                await served.stop(LAST_WORDS_S)
            for channel in channels.values():
                await channel.close()

    def _planned(self, channel: Channel, layer: str, state: LayerState) -> Channel:
        """Returns the channel to a layer with the faults that were planned for it."""
        path = self._options.fault_plan
        if path is None:
            return channel
        plan = FaultPlan.parse(configuration.read_file(path), self._rng.child("fault-plan"))
        return cast("Channel", planned(channel, plan, self._role.layer, layer, self._clock, state.events))

    def _told_to_stop(self, lives: Lives) -> None:
        """Begins to stop; what has not stopped in time is ended by the kernel's alarm."""
        self._log.info("process.stops", pid=os.getpid())
        signal.alarm(STOP_LIMIT_S)
        lives.stop()
