"""A host in a dictionary: RAM, run pages, and somebody who performs the engine's effects from a script."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from lamina_hypervisor.domain.boot.elf import Kernel, parse_kernel
from lamina_hypervisor.domain.exits.exits import Ran
from lamina_hypervisor.domain.exits.time_slices import SliceLedger
from lamina_hypervisor.domain.memory.addresses import Frame
from lamina_hypervisor.domain.memory.hold import Granted, Opened
from lamina_hypervisor.domain.vcpus.processor import MODELLED
from lamina_hypervisor.domain.vcpus.vcpu import Context
from lamina_hypervisor.domain.vm import Definition, Vm
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.effects import Space
from lamina_hypervisor.engines.model.engine import ModelEngine
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_kit.bus.run_page import ExitReason, RunPage
from lamina_kit.effects import Effect, Step, WaitFor
from lamina_kit.rng import Rng


class DictRam:
    """Host RAM as words in a dictionary, with run pages."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.pages: dict[int, bytearray] = {}
        self.cas_count = 0

    def load64(self, pa: int) -> int:
        return self.words.get(pa, 0)

    def cas64(self, pa: int, expected: int, new: int) -> int:
        self.cas_count += 1
        found = self.words.get(pa, 0)
        if found == expected:
            self.words[pa] = new
        return found

    def read(self, pa: int, n: int) -> bytes:
        first = pa & ~7
        raw = b"".join(struct.pack("<Q", self.load64(at)) for at in range(first, pa + n, 8))
        return raw[pa - first : pa - first + n]

    def store(self, pa: int, value: int) -> None:
        self.words[pa] = value

    def run_page(self, index: int) -> memoryview:
        return memoryview(self.pages.setdefault(index, bytearray(4096)))


class FakeClock:
    """Time that moves 1 µs each time someone looks."""

    mode = "stepped"

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        self.ns += 1000
        return self.ns

    def wall_ns(self) -> int:
        return 10**18 + self.now_ns()

    async def sleep_ns(self, ns: int) -> None:
        self.ns += ns


class Stuck(Exception):
    """A step waits for something that nobody in the test does."""


class World:
    """Performs effects: frames from a counter, grants at once, runs from `script`."""

    def __init__(self) -> None:
        self.ram = DictRam()
        self.clock = FakeClock()
        self.slices = SliceLedger()
        self.engine = ModelEngine(self.ram, self.clock, Rng(1), self.slices)
        self.log: list[Effect] = []
        self.script: list[Callable[[RunPage], Ran]] = []
        self.fail: dict[type[Effect], BaseException] = {}
        self.refusal = ""
        self.processor = MODELLED
        self.position = 1
        self.receive: Any = None
        self._frame = 0
        self._contexts = 0

    def drive(self, step: Step[Any]) -> Any:
        """Runs a step to its end; one that waits raises `Stuck`."""
        try:
            effect = next(step)
            while True:
                try:
                    result = self.perform(effect)
                except Stuck:
                    step.close()
                    raise
                except BaseException as error:
                    effect = step.throw(error)
                else:
                    effect = step.send(result)
        except StopIteration as end:
            return end.value

    def perform(self, effect: Effect) -> Any:
        """Performs one effect and remembers it."""
        self.log.append(effect)
        if type(effect) in self.fail:
            raise self.fail[type(effect)]
        if isinstance(effect, WaitFor):
            raise Stuck(effect.key)
        if isinstance(effect, effects.LookAtProcessor):
            return self.processor
        if isinstance(effect, effects.AllocateTables):
            return [self._next_frame() for _ in range(effect.count)]
        if isinstance(effect, effects.CreateSpace):
            return Space(7, 1, "hosts/h1/spaces/s-7")
        if isinstance(effect, effects.CreateRunGroup):
            return "hosts/h1/runGroups/g"
        if isinstance(effect, effects.CreateContext):
            self._contexts += 1
            return Context(self._contexts, 1, self._contexts - 1)
        if isinstance(effect, effects.OpenHold):
            self.receive = effect.receive
            return self.drive(self.receive(1, Opened()))
        if isinstance(effect, effects.Want):
            return self._want(effect)
        if isinstance(effect, effects.Run):
            return self._run(effect)
        return None

    def performed(self, kind: type[Effect]) -> list[Any]:
        """Returns the effects of one kind, in order."""
        return [effect for effect in self.log if isinstance(effect, kind)]

    def say(self, message: Any) -> None:
        """Sends one message of the hold stream."""
        self.position += 1
        self.drive(self.receive(self.position, message))

    def _want(self, effect: effects.Want) -> str:
        if not self.refusal:
            self.say(Granted(1, effect.gpa, self._next_frame(), True, True))
        return self.refusal

    def _run(self, effect: effects.Run) -> Ran:
        if not self.script:
            raise Stuck("the script is over")
        return self.script.pop(0)(RunPage(self.ram.run_page(effect.context.run_page)))

    def _next_frame(self) -> Frame:
        self._frame += 1
        return Frame(self._frame)


def elf_image(data: bytes = b"\xf4" * 16, *, gpa: int = 0x100000, entry: int | None = None, memory: int = 0) -> bytes:
    """Returns a kernel image with one segment."""
    start = 64 + 56
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, gpa if entry is None else entry, 64, 0, 0,
        64, 56, 1, 0, 0, 0,
    )  # fmt: skip
    program = struct.pack("<IIQQQQQQ", 1, 5, start, gpa, gpa, len(data), memory or len(data), 0x1000)
    return header + program + data


def leaving(reason: ExitReason, **words: int) -> Callable[[RunPage], Ran]:
    """Returns a run that ends for `reason`, with these fields of the exit record and of the registers."""

    def run(page: RunPage) -> Ran:
        from lamina_hypervisor.domain.exits import exits

        for name, value in words.items():
            index = getattr(exits, name.upper(), None)
            if isinstance(index, int) and name not in ("rax", "rbx", "rcx", "rdx", "rflags", "rip", "cpl"):
                page.words[index] = value
            else:
                setattr(page, name, value)
        return Ran(reason, instructions=10, run_ns=2000, wait_ns=500, core=1)

    return run


def run(world: World, machine: ModelMachine, *script: Any, vcpu: int = 0) -> RunPage:
    """Runs a vCPU through a script until it is off, the machine ends, or the script does."""
    world.script = list(script)
    try:
        world.drive(world.engine.run_vcpu(machine, vcpu))
    except Exception as stuck:
        assert type(stuck).__name__ == "Stuck", stuck
    return machine.vcpus[vcpu].page


@pytest.fixture
def world() -> World:
    """A host that performs effects."""
    return World()


@pytest.fixture
def make_image() -> Callable[..., bytes]:
    """Makes kernel images."""
    return elf_image


@pytest.fixture
def kernel() -> Kernel:
    """A kernel of sixteen HLT instructions."""
    return parse_kernel(elf_image())


@pytest.fixture
def leave() -> Callable[..., Callable[[RunPage], Ran]]:
    """Makes runs for a world's script."""
    return leaving


@pytest.fixture
def make_machine(world: World, kernel: Kernel) -> Callable[..., ModelMachine]:
    """Powers a VM on in the world."""

    def make(vcpus: int = 1, memory: int = 16 << 20) -> ModelMachine:
        definition = Definition("web-1", vcpus, memory, "sha256:0", "hello")
        vm = Vm("hosts/h1/vms/web-1", 1, 1, definition, 0)
        machine: ModelMachine = world.drive(world.engine.power_on(vm, kernel))
        return machine

    return make
