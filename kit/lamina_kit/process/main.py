"""The shell of one service process: everything around a layer's service when it runs by itself.

    # lamina_mmu/__main__.py
    sys.exit(main(Role("mmu", build, MmuConfig, calls=("hardware",), needs=("hardware",), maps_bus=True)))

The life of a process, in order; `docs/adr/0011-processes.md` says why:

    options, configuration          wrong ones: exit status 2
    lock on the state directory     taken: 3, with the pid that has it
    logs, metrics, export           busy port: 3; SIGHUP reads the configuration anew from here on (`operations.py`)
    serve                           busy port: 3; from here on calls answer UNAVAILABLE and say who is missing
    wait for the layers below       another revision: 3
    check the memory bus            missing or foreign: 3, with path, host and boot id
    start the service               calls reach it, health says SERVING
    … until SIGTERM or SIGINT       NOT_SERVING, calls end, streams hear SHUTTING_DOWN, stop: 0; a second one hastens
    … or another boot below         the host lost power: the service is stopped and built anew (`process/lifecycle.py`)

The kit knows no layer: what a layer is called, calls and needs stands in its `__main__.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from lamina_kit import config as configuration
from lamina_kit.engines import LAYERS, load_engine
from lamina_kit.errors import LaminaError
from lamina_kit.faults.channel import planned
from lamina_kit.faults.plan import FaultPlan
from lamina_kit.layer.service import LAST_WORDS_S, Served, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.operations import settings
from lamina_kit.operations.operations import Configured, Operations, Place, Shown
from lamina_kit.operations.reload import HangUp
from lamina_kit.process.clock import JoinedClock, end_time, ground_clock
from lamina_kit.process.lifecycle import Lifecycle, Role
from lamina_kit.process.options import Options, read
from lamina_kit.process.parent import end_with
from lamina_kit.process.state_lock import StateLock
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import Channel, connect
from lamina_kit.security.callers import Users
from lamina_kit.security.private_folder import UMASK
from lamina_kit.telemetry import log

__all__ = ["CANNOT_START", "DEFECT", "MISCONFIGURED", "STOPPED", "Role", "main"]

STOPPED, DEFECT, MISCONFIGURED, CANNOT_START = 0, 1, 2, 3
"""Exit statuses. 2: wrong flags or configuration; 3: a port, the state, the bus or a layer below is not as needed."""
STOP_LIMIT_S = 30
"""How long stopping in order may take, beyond the grace of calls, before the process is ended all the same."""
HASTE_LIMIT_S = 10
"""The same after a second signal, which also ends the grace of calls."""


def main(role: Role, words: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Runs the process of a layer. Returns its exit status."""
    environ = os.environ if environ is None else environ
    os.umask(UMASK)
    try:
        options = read(role.layer, role.calls, sys.argv[1:] if words is None else words, environ, role.alone)
        role = role.of(options)
        options = role.placed(options)
        configured = partial(_configuration, role, options, environ)
        found = configured()
    except LaminaError as error:
        return _report(error, MISCONFIGURED)
    try:
        with StateLock(options.state_dir, role.layer) as lock:
            if options.parent is not None:
                end_with(options.parent)
            clock = JoinedClock() if role.calls else ground_clock(options.state_dir)
            rng = ids_of(options.seed, lock.count_start())
            asyncio.run(Process(role, options, found.layers[role.layer], clock, rng, configured).run())
            if not role.calls:
                end_time(options.state_dir)
            return STOPPED
    except LaminaError as error:
        return _report(error, CANNOT_START)


def _configuration(role: Role, options: Options, environ: Mapping[str, str]) -> Configured:
    if options.config is not None:
        configuration.check_sections(options.config, LAYERS)
    load_engine(role.layer, options.engine)
    if options.fault_plan is not None:
        FaultPlan.parse(configuration.read_file(options.fault_plan), Rng(0))
    own = configuration.load(role.layer, role.config, options.config, environ)
    return Configured(settings.load(options.config, environ, options.operations), {role.layer: own})


def ids_of(seed: int | None, start: int) -> Rng:
    """Returns the source of a process's ids: from its seed and the number of its start, or from chance.

    A process that was killed and comes back must not make the ids of the one before: by its boot id the layers above
    know that it is another one, and a request id that comes again means the request of before.
    """
    if seed is None:
        return Rng(int.from_bytes(os.urandom(8)))
    return Rng(seed) if start == 1 else Rng(seed).child(f"start-{start}")


def _report(error: LaminaError, status: int) -> int:
    print(f"{error.code} {error.reason}: {error}", file=sys.stderr, flush=True)
    return status


class Process:
    """One process at work. `configured` reads its configuration anew, for a reload."""

    def __init__(
        self,
        role: Role,
        options: Options,
        config: Any,
        clock: JoinedClock,
        rng: Rng,
        configured: Callable[[], Configured],
    ) -> None:
        self._role = role
        self._options = options
        self._config = config
        self._clock = clock
        self._rng = rng
        self._log = log.logger(role.layer)
        self._stops = False
        self._lifecycle: Lifecycle | None = None
        self._look: Callable[[], None] = lambda: None
        self._configured = configured

    async def run(self) -> None:
        """Serves until a signal, through every loss of power below."""
        options, role = self._options, self._role
        rng = self._rng.child(role.layer)
        state = role.state(options, self._clock, rng)
        security = options.security()
        channels = {layer: connect(target, security=security) for layer, target in options.upstreams.items()}
        served: Served | None = None
        operations = self._operations(state, security.users)
        try:
            await operations.start()
            operations.attach()
            self._look = operations.look
            HangUp(operations.reload, options.state_dir).install()
            through = self._planned(channels, state)
            lifecycle = self._lifecycle = Lifecycle(role, options, self._config, state, rng, through, self._clock.join)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._told_to_stop, lifecycle)
            served = await serve(lifecycle.board, options.listen, lifecycle.state, serving=False, security=security)
            for layer in channels:
                await served.set_below(layer, False)
            lifecycle.upstreams.on_change = served.set_below
            self._log.info("process.serves", addresses=list(served.addresses), pid=os.getpid())
            await lifecycle.run(served.set_serving)
        finally:
            if served is not None:
                await served.stop(LAST_WORDS_S)
            for channel in channels.values():
                await channel.close()
            await operations.stop()

    def _operations(self, state: LayerState, users: Users) -> Operations:
        """Returns logs, metrics and export of this process; `state` lends its records to every life."""
        layer = self._role.layer

        def missing() -> str:
            return "" if self._lifecycle is not None and self._lifecycle.board.is_open else layer

        place = Place(layer, state.host, self._options.metrics_offset)
        return Operations(self._configured, Shown(lambda: [state], missing, self._clock.wall_ns), place, users)

    def _planned(self, channels: Mapping[str, Channel], state: LayerState) -> dict[str, Channel]:
        """Returns the channels to the layers below with the faults that were planned for them."""
        path = self._options.fault_plan
        if path is None:
            return dict(channels)
        plan = FaultPlan.parse(configuration.read_file(path), self._rng.child("fault-plan"))
        faulty = partial(planned, plan=plan, caller=self._role.layer, clock=self._clock, events=state.events)
        return {layer: cast("Channel", faulty(channel, layer=layer)) for layer, channel in channels.items()}

    def _told_to_stop(self, lifecycle: Lifecycle) -> None:
        """Begins to stop, or hastens; what has not stopped in time is ended by the kernel's alarm."""
        self._log.info("process.stops", pid=os.getpid(), hastened=self._stops)
        signal.alarm(HASTE_LIMIT_S if self._stops else STOP_LIMIT_S + self._options.grace_s)
        self._stops = True
        self._look()
        lifecycle.stop()
