"""What can break in a machine: a core that stops, a bit of RAM that flips, memory that fails.

The kit serves them as `lamina.common.v1.Faults` (`kit/lamina_kit/faults/table.py`); here is what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lamina_hardware.domain.machine_events import CoreChange, MemoryFailure, News
from lamina_hardware.engines.model.engine import ModelEngine
from lamina_hardware.io.cores.dispatcher import Dispatcher
from lamina_hardware.names import CORE, HOST, Names
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.errors import FailedPrecondition, NotFound
from lamina_kit.faults.kinds import Breakage, FaultKind, Parameter
from lamina_kit.faults.table import FaultTable

_WORD = 8
_FRAME_SHIFT = 12


class MachineWithCores(Protocol):
    """What faults of cores and memory need of a machine."""

    engine: ModelEngine
    dispatcher: Dispatcher
    bus: MemoryBus
    names: Names
    record: Callable[..., Any]
    """Notes what happened to an object, as `EventLog.record` does."""

    def note(self, news: News) -> None:
        """Tells those that watch the machine what happened to it."""


class HardwareFaults:
    """Breaks one machine. `memory_bytes` bounds the addresses of bits."""

    def __init__(self, machine: MachineWithCores, cores: int, memory_bytes: int) -> None:
        self._machine = machine
        self._cores = cores
        self._memory_bytes = memory_bytes
        self._errors: dict[int, int] = {}

    def register(self, table: FaultTable) -> None:
        """Adds the kinds to the layer's table."""
        address = Parameter("address", "physical address of the byte", 0, self._memory_bytes - 1)
        table.register(
            FaultKind(
                "core-lost",
                CORE,
                "A core stops. The context on it is preempted and goes on at another; with fewer all wait longer.",
                self._lose_core,
                self._return_core,
            )
        )
        table.register(
            FaultKind(
                "bit-flip",
                HOST,
                "One bit of RAM becomes another, as without error correction. Whoever reads it gets the wrong value; "
                "translated code of the frame is dropped, translations in a TLB stay, as in a real machine.",
                self._flip_bit,
                parameters=(address, Parameter("bit", "number of the bit in the byte, 0 the lowest", 0, 7)),
            )
        )

        table.register(
            FaultKind(
                "memory-corrected",
                HOST,
                "One bit of RAM is read wrongly and corrected: the bytes are right, the machine tells the error.",
                self._correct,
                parameters=(address,),
            )
        )
        table.register(
            FaultKind(
                "memory-failed",
                HOST,
                "Bytes of RAM are lost, as of an uncorrected error. A core that translates an address to their frame "
                "gives its context back with a machine check; `ReadMemory` of it is refused. Clearing is a new module. "
                "Any number of frames may have failed.",
                self._fail_memory,
                self._mend_memory,
                parameters=(address,),
                part=lambda breakage: f"frame {breakage.numbers['address'] >> _FRAME_SHIFT}",
            )
        )

    def _tell_memory(self, breakage: Breakage, corrected: bool) -> int:
        machine, address = self._machine, breakage.numbers["address"]
        frame = address >> _FRAME_SHIFT
        count = self._errors[frame] = self._errors.get(frame, 0) + 1
        machine.note(MemoryFailure(address, 1, corrected, count))
        event = "memory.corrected" if corrected else "memory.failed"
        machine.record(breakage.object, event, cause=breakage.name, address=hex(address), frame=frame, count=count)
        return count

    def _correct(self, breakage: Breakage) -> Mapping[str, object]:
        self._machine.names.check_host(breakage.object)
        return {"count": self._tell_memory(breakage, corrected=True)}

    async def _fail_memory(self, breakage: Breakage) -> Mapping[str, object]:
        machine = self._machine
        machine.names.check_host(breakage.object)
        frame = breakage.numbers["address"] >> _FRAME_SHIFT
        machine.bus.fail(frame)
        await machine.dispatcher.forget_translations()
        return {"frame": frame, "count": self._tell_memory(breakage, corrected=False)}

    def _mend_memory(self, breakage: Breakage) -> None:
        frame = breakage.numbers["address"] >> _FRAME_SHIFT
        self._machine.bus.mend(frame)
        self._machine.record(breakage.object, "memory.mended", cause=breakage.name, frame=frame)

    async def _lose_core(self, breakage: Breakage) -> Mapping[str, object]:
        machine, core = self._machine, self._core(breakage)
        arbiter = machine.engine.arbiter
        if arbiter.lost[core]:
            raise FailedPrecondition(
                f"{breakage.object} is lost already: its thread failed.",
                reason="CORE_LOST",
                next_step="Take another core; this one comes back with a restart of the host.",
            )
        if sum(not lost for lost in arbiter.lost) == 1:
            raise FailedPrecondition(
                f"{breakage.object} is the last core that works; without it nothing would ever run.",
                reason="CORE_IS_LAST",
                next_step="Clear the fault of another core first.",
            )
        moved = await machine.dispatcher.take_out(core)
        machine.note(CoreChange(core, lost=True))
        machine.record(breakage.object, "core.lost", cause=breakage.name, rule="fault injected", contexts_moved=moved)
        return {"contexts_moved": moved, "cores_left": sum(not lost for lost in arbiter.lost)}

    def _return_core(self, breakage: Breakage) -> None:
        core = self._core(breakage)
        self._machine.dispatcher.put_back(core)
        self._machine.note(CoreChange(core, lost=False))
        self._machine.record(breakage.object, "core.returned", cause=breakage.name)

    async def _flip_bit(self, breakage: Breakage) -> Mapping[str, object]:
        machine = self._machine
        machine.names.check_host(breakage.object)
        address, bit = breakage.numbers["address"], breakage.numbers["bit"]
        word = address - address % _WORD
        mask = 1 << (8 * (address % _WORD) + bit)
        while machine.bus.cas64(word, old := machine.bus.load64(word), old ^ mask) != old:
            pass  # a core set A or D in the same word
        await machine.dispatcher.drop_written_code()
        was = 1 if old & mask else 0
        frame = address >> 12
        machine.record(breakage.object, "bit.flipped", cause=breakage.name, address=hex(address), bit=bit, was=was)
        return {"was": was, "is": 1 - was, "frame": frame}

    def _core(self, breakage: Breakage) -> int:
        self._machine.names.check_host(f"hosts/{breakage.ids['host']}")
        text = breakage.ids["core"]
        if not (text.isascii() and text.isdigit() and int(text) < self._cores):
            raise NotFound(
                f"{breakage.object} does not exist: the host has cores 0 to {self._cores - 1}.",
                reason="CORE_UNKNOWN",
                next_step="List them with `Cpu.ListCores`.",
            )
        return int(text)
