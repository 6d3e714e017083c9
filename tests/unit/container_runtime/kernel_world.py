"""A container kernel without a machine: memory is a dict of pages, effects are performed by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lamina_container_runtime.domain.images import layer as layers
from lamina_container_runtime.domain.images.layer import LayerEntry
from lamina_container_runtime.domain.wait import Waiter, Woken
from lamina_container_runtime.engines.model import effects
from lamina_container_runtime.engines.model.effects import ContextRef, Handle, SpaceRef
from lamina_container_runtime.engines.model.kernel import rootfs
from lamina_container_runtime.engines.model.kernel.abi import U64, Errno
from lamina_container_runtime.engines.model.kernel.files.console import ConsoleFile
from lamina_container_runtime.engines.model.kernel.files.credentials import Credentials
from lamina_container_runtime.engines.model.kernel.files.devices import open_null
from lamina_container_runtime.engines.model.kernel.files.fd_table import FdTable
from lamina_container_runtime.engines.model.kernel.files.resolve import View
from lamina_container_runtime.engines.model.kernel.kernel import Kernel
from lamina_container_runtime.engines.model.kernel.main_loop import MainLoop
from lamina_container_runtime.engines.model.kernel.memory.address_space import AddressSpace
from lamina_container_runtime.engines.model.kernel.processes.lifecycle import new_thread
from lamina_container_runtime.engines.model.kernel.processes.loader import STACK_BYTES, STACK_TOP
from lamina_container_runtime.engines.model.kernel.processes.pid_namespace import PidNamespace, PidsLimit
from lamina_container_runtime.engines.model.kernel.processes.process import Container, Process
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls.dispatch import TABLE, dispatch
from lamina_container_runtime.engines.model.syscalls.numbers import NUMBERS
from lamina_kit.bus.run_page import RunPage
from lamina_kit.effects import NeedFault, Step
from lamina_kit.errors import InvalidArgument, OutOfRange
from lamina_kit.paging import is_user
from lamina_kit.rng import Rng

T = TypeVar("T")
PAGE = 4096
SCRATCH = 0x10000
"""Where `World.put` keeps arguments."""
STACK = STACK_TOP - STACK_BYTES


class StillClock:
    """A clock that a test moves."""

    mode = "stepped"

    def __init__(self) -> None:
        self.now = 0

    def now_ns(self) -> int:
        """Returns the time."""
        return self.now

    def wall_ns(self) -> int:
        """Returns the wall time."""
        return 1_767_225_600 * 10**9 + self.now

    async def sleep_ns(self, ns: int) -> None:
        """Is never called: effects are performed by hand."""
        raise AssertionError("nothing sleeps here")


class DictMemory:
    """User memory as pages by (root, page number)."""

    def __init__(self) -> None:
        self.pages: dict[tuple[int, int], bytearray] = {}

    def read(self, root: int, va: int, n: int) -> bytes:
        """Reads or asks for the page."""
        if not is_user(va, n):
            raise OutOfRange("not user", reason="ADDRESS_NOT_USER")
        return bytes(self._page(root, at, False)[at % PAGE] for at in range(va, va + n))

    def write(self, root: int, va: int, data: bytes | bytearray | memoryview) -> None:
        """Writes or asks for the page."""
        if not is_user(va, len(data)):
            raise OutOfRange("not user", reason="ADDRESS_NOT_USER")
        for offset, value in enumerate(bytes(data)):
            self._page(root, va + offset, True)[(va + offset) % PAGE] = value

    def cstring(self, root: int, va: int, limit: int) -> bytes:
        """Reads up to a zero byte."""
        found = bytearray()
        while len(found) <= limit:
            (byte,) = self.read(root, va + len(found), 1)
            if not byte:
                return bytes(found)
            found.append(byte)
        raise InvalidArgument("too long", reason="STRING_TOO_LONG")

    def _page(self, root: int, va: int, write: bool) -> bytearray:
        page = self.pages.get((root, va // PAGE))
        if page is None:
            raise NeedFault(va, write)
        return page


class Contents:
    """File contents of layers by digest."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        self.blobs = blobs

    def read(self, digest: str, offset: int, count: int) -> bytes:
        """Returns a part of a blob."""
        return self.blobs[digest][offset : offset + count]


class World:
    """One container with one process whose system calls a test makes.

    Addresses below 16 MiB and those of stacks are mapped on demand, all others are refused.
    """

    def __init__(self, files: dict[str, bytes] | None = None, uid: int = 0) -> None:
        self.clock = StillClock()
        self.memory = DictMemory()
        self.kicked: list[ContextRef] = []
        self.events: list[tuple[str, str, dict[str, object]]] = []
        self.written: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.spawned: list[Step[None]] = []
        self.waiting: list[effects.Wait] = []
        self.waited: list[int | None] = []
        self.on_wait: Callable[[Waiter], None] = lambda waiter: waiter.fire(Woken.TIMEOUT)
        self.spaces = 1
        self.contexts = 0
        self.kernel = Kernel(
            self.clock, Rng("kernel"), self.memory, self.kicked.append, self.record, lambda name: f"containers/{name}"
        )
        blobs = {f"sha256:{path}": data for path, data in (files or {}).items()}
        entries = [
            LayerEntry(path, layers.FILE, mode=0o755, size=len(data), digest=f"sha256:{path}" if data else "")
            for path, data in (files or {}).items()
        ]
        root = rootfs.make_root([layers.build(entries)], Contents(blobs), self.clock.wall_ns, 1 << 20)
        self.container = Container(
            self.kernel, "c-1", "box", PidNamespace[Process](PidsLimit(8)), root, self, "memory/c-1", "run/c-1"
        )
        rootfs.furnish(self.container)
        self.kernel.containers["c-1"] = self.container
        pid = self.container.pids.allocate()
        who = Credentials(uid, uid)
        self.process = Process(
            self.container, pid, None, AddressSpace(self._space(), "d"), FdTable(), View(root, root, who)
        )
        self.process.view.viewer = self.process
        self.process.fds.put(0, open_null(root.fs))
        self.process.fds.put(1, ConsoleFile(root.fs, self, "stdout", 1))
        self.process.fds.put(2, ConsoleFile(root.fs, self, "stderr", 1))
        self.container.init = self.process
        self.container.pids.add(self.process)
        self.loop = MainLoop(dispatch)
        self.thread = new_thread(self.process, pid, self._context(), self.loop)
        self._top = SCRATCH

    def first_thread(self, pid: int) -> Thread:
        """Returns the first thread of a process."""
        thread = self.container.pids.processes[pid].threads[pid]
        assert isinstance(thread, Thread)
        return thread

    def write(self, stream: str, data: bytes) -> None:
        """Takes console output."""
        self.written[stream] += data

    def record(self, object: str, event: str, *, cause: str = "", rule: str = "", **inputs: object) -> None:
        """Takes an event."""
        self.events.append((object, event, inputs))

    def put(self, data: bytes | str) -> int:
        """Stores bytes, or text with its zero byte, in user memory and returns the address."""
        raw = data.encode() + b"\0" if isinstance(data, str) else data
        address = self._top
        self._top += (len(raw) + 15) & ~15
        for page in range(address // PAGE, (address + len(raw)) // PAGE + 1):
            self.memory.pages.setdefault((self.process.memory.root, page), bytearray(PAGE))
        self.memory.write(self.process.memory.root, address, raw)
        return address

    def get(self, address: int, count: int) -> bytes:
        """Returns bytes of user memory."""
        return self.memory.read(self.process.memory.root, address, count)

    def call(self, name: str, *arguments: int | str | bytes, thread: Thread | None = None) -> Any:
        """Makes a system call; texts and bytes are put into user memory first. Returns the result or -errno."""
        entry = TABLE[NUMBERS[name]]
        words = [self.put(word) if isinstance(word, (str, bytes)) else word & U64 for word in arguments]
        words += [0] * (entry.arity - len(words))
        try:
            outcome = entry.function(thread or self.thread, *words[: entry.arity])
            return outcome if outcome is None or isinstance(outcome, int) else self.drive(outcome)
        except Errno as error:
            return -error.number

    def drive(self, step: Step[T]) -> T:
        """Runs a step to its end, performing its effects."""
        result: Any = None
        try:
            effect = next(step)
            while True:
                result = self.perform(effect)
                effect = step.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def perform(self, effect: Any) -> Any:
        """Performs one effect."""
        match effect:
            case effects.FaultIn():
                return self._fault(effect)
            case effects.Wait():
                self.waited.append(effect.timeout_ns)
                if effect.waiter.reason is None:
                    self.on_wait(effect.waiter)
                assert effect.waiter.reason is not None, "a wait that nothing ends"
                return None
            case effects.CreateSpace():
                return self._space()
            case effects.ForkSpace():
                return self._fork(effect)
            case effects.CreateContext():
                return self._context()
            case effects.CreateObject():
                return effects.ObjectRef("objects/1", Handle(1, 1))
            case effects.MapRange():
                return effect.address or 0x7000_0000
            case effects.ListMappings():
                return []
            case effects.Spawn():
                self.spawned.append(effect.step)
                return None
        return None

    def names(self, path: str) -> Sequence[str]:
        """Returns the names in a directory, as getdents64 gives them."""
        fd = self.call("open", path, 0)
        buffer = self.put(bytes(8192))
        count = self.call("getdents64", fd, buffer, 8192)
        self.call("close", fd)
        data, found = self.get(buffer, count), []
        while data:
            length = int.from_bytes(data[16:18], "little")
            found.append(data[19:length].split(b"\0")[0].decode())
            data = data[length:]
        return found

    def _fault(self, effect: effects.FaultIn) -> effects.FaultResult:
        if 16 << 20 <= effect.va < STACK:
            return effects.FaultResult(effects.FaultOutcome.REFUSED)
        self.memory.pages.setdefault((effect.space.root, effect.va // PAGE), bytearray(PAGE))
        return effects.FaultResult(effects.FaultOutcome.RESOLVED)

    def _fork(self, effect: effects.ForkSpace) -> SpaceRef:
        made = self._space()
        for (root, number), page in list(self.memory.pages.items()):
            if root == effect.space.root:
                self.memory.pages[made.root, number] = bytearray(page)
        return made

    def _space(self) -> SpaceRef:
        self.spaces += 1
        return SpaceRef(f"spaces/{self.spaces}", Handle(self.spaces, 1), self.spaces * PAGE)

    def _context(self) -> ContextRef:
        self.contexts += 1
        page = RunPage(memoryview(bytearray(PAGE)))
        return ContextRef(f"contexts/{self.contexts}", Handle(self.contexts, 1), page)
