"""Signals: what is pending, what is blocked, and what a signal does.

    send ──▶ ignored? dropped ──▶ pending ──▶ blocked? waits ──▶ on the way to user mode: handler, or default action
                                                                 (terminate, ignore, stop, continue)

SIGKILL and SIGSTOP cannot be handled, blocked or ignored. The first process of a PID namespace only gets signals that
it has a handler for, except from outside (SIGKILL, SIGSTOP) and for its own faults.
Source: signal(7), pid_namespaces(7).
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field

from lamina_container_runtime.engines.model.kernel.abi import (
    SIGABRT,
    SIGBUS,
    SIGCHLD,
    SIGCONT,
    SIGFPE,
    SIGILL,
    SIGKILL,
    SIGSEGV,
    SIGSTOP,
    SIGTRAP,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGURG,
    SIGWINCH,
)

SIG_DFL, SIG_IGN = 0, 1
SA_NOCLDSTOP, SA_NOCLDWAIT, SA_SIGINFO, SA_RESTORER = 0x1, 0x2, 0x4, 0x04000000
SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND = 0x08000000, 0x10000000, 0x40000000, 0x80000000
SI_USER, SI_KERNEL, SI_TKILL, CLD_EXITED, CLD_KILLED, CLD_STOPPED, CLD_CONTINUED = 0, 0x80, -6, 1, 2, 5, 6
SEGV_MAPERR, SEGV_ACCERR, FPE_INTDIV, ILL_ILLOPN = 1, 2, 1, 2
STOPS = (SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU)
SYNCHRONOUS = (SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT)
IGNORED_BY_DEFAULT = (SIGCHLD, SIGCONT, SIGURG, SIGWINCH)
UNBLOCKABLE = 1 << (SIGKILL - 1) | 1 << (SIGSTOP - 1)


class Action(enum.Enum):
    """What the default of a signal does."""

    TERMINATE = "terminate"
    IGNORE = "ignore"
    STOP = "stop"


def default_action(signal: int) -> Action:
    """Returns the default action of a signal; SIGCONT's going on happens when it is sent."""
    if signal in IGNORED_BY_DEFAULT:
        return Action.IGNORE
    return Action.STOP if signal in STOPS else Action.TERMINATE


@dataclass(frozen=True)
class SignalInfo:
    """Why a signal was sent: the fields of siginfo_t. `value` is si_status, or the low part of an address."""

    signal: int
    code: int = SI_USER
    pid: int = 0
    uid: int = 0
    status: int = 0
    address: int = 0

    def pack(self) -> bytes:
        """Returns the 128 bytes of siginfo_t."""
        head = struct.pack("<iiii", self.signal, 0, self.code, 0)
        if self.signal in SYNCHRONOUS and self.code not in (SI_USER, SI_TKILL):
            body = struct.pack("<Q", self.address)
        else:
            body = struct.pack("<iIi", self.pid, self.uid, self.status)
        return (head + body).ljust(128, b"\0")


@dataclass(frozen=True)
class Disposition:
    """What a process wants done with a signal: `handler` is SIG_DFL, SIG_IGN or an address."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


@dataclass
class Handlers:
    """The dispositions of a process, shared by those made with CLONE_SIGHAND."""

    table: dict[int, Disposition] = field(default_factory=dict)

    def get(self, signal: int) -> Disposition:
        """Returns the disposition of a signal."""
        return self.table.get(signal, Disposition())

    def ignores(self, signal: int) -> bool:
        """Returns whether a signal does nothing when it arrives."""
        handler = self.get(signal).handler
        return handler == SIG_IGN or (handler == SIG_DFL and default_action(signal) is Action.IGNORE)

    def mask(self, *, ignored: bool) -> int:
        """Returns a bit for each signal that is ignored, or for each that has a handler."""
        set_ones = [(number, entry.handler) for number, entry in self.table.items() if entry.handler != SIG_DFL]
        return sum(1 << (number - 1) for number, handler in set_ones if (handler == SIG_IGN) is ignored)

    def for_exec(self) -> Handlers:
        """Returns what exec leaves: handlers become defaults, ignored signals stay ignored."""
        return Handlers({number: entry for number, entry in self.table.items() if entry.handler == SIG_IGN})

    def copy(self) -> Handlers:
        """Returns a copy for a fork."""
        return Handlers(dict(self.table))


@dataclass
class Pending:
    """Signals that were sent and not delivered; of one number at most one, as standard signals are."""

    infos: dict[int, SignalInfo] = field(default_factory=dict)

    def add(self, info: SignalInfo) -> None:
        """Notes a signal, unless one of its number is there."""
        self.infos.setdefault(info.signal, info)

    def discard(self, signals: tuple[int, ...]) -> None:
        """Forgets signals."""
        for signal in signals:
            self.infos.pop(signal, None)

    @property
    def mask(self) -> int:
        """A bit for each pending signal."""
        return sum(1 << (signal - 1) for signal in self.infos)

    def take(self, blocked: int) -> SignalInfo | None:
        """Removes and returns the next signal that is not blocked: faults first, then the lowest number."""
        if not self.infos:
            return None
        ready = [signal for signal in self.infos if not blocked >> (signal - 1) & 1]
        if not ready:
            return None
        chosen = min(ready, key=lambda signal: (signal not in SYNCHRONOUS, signal))
        return self.infos.pop(chosen)
