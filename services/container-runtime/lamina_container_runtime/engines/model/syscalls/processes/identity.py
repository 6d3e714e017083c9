"""Who a process is: numbers, users and groups."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace

from lamina_container_runtime.engines.model.kernel.abi import Errno, signed
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.effects import Step

CALLS = Calls()
_MAX_GROUPS = 65536


@CALLS.add("getpid")
def getpid(thread: Thread) -> int:
    """getpid(2)."""
    return thread.process.pid


@CALLS.add("gettid")
def gettid(thread: Thread) -> int:
    """gettid(2)."""
    return thread.tid


@CALLS.add("getppid")
def getppid(thread: Thread) -> int:
    """getppid(2): 0 for process 1, whose parent is outside."""
    return thread.process.parent.pid if thread.process.parent else 0


@CALLS.add("set_tid_address")
def set_tid_address(thread: Thread, address: int) -> int:
    """set_tid_address(2)."""
    thread.clear_child_tid = address
    return thread.tid


@CALLS.add("getuid", "geteuid")
def getuid(thread: Thread) -> int:
    """getuid(2); real and effective ids are the same."""
    return thread.process.view.who.uid


@CALLS.add("getgid", "getegid")
def getgid(thread: Thread) -> int:
    """getgid(2)."""
    return thread.process.view.who.gid


@CALLS.add("getresuid")
def getresuid(thread: Thread, real: int, effective: int, saved: int) -> Step[int]:
    """getresuid(2)."""
    for address in (real, effective, saved):
        yield from user.write(thread, address, struct.pack("<I", thread.process.view.who.uid))
    return 0


@CALLS.add("getresgid")
def getresgid(thread: Thread, real: int, effective: int, saved: int) -> Step[int]:
    """getresgid(2)."""
    for address in (real, effective, saved):
        yield from user.write(thread, address, struct.pack("<I", thread.process.view.who.gid))
    return 0


def _become(thread: Thread, uid: int | None, gid: int | None) -> int:
    """Changes ids for good: root becomes anybody, others stay who they are (EPERM)."""
    who = thread.process.view.who
    new_uid = who.uid if uid is None else uid
    new_gid = who.gid if gid is None else gid
    if not who.is_root and (new_uid, new_gid) != (who.uid, who.gid):
        raise Errno(errno.EPERM)
    thread.process.view.who = replace(who, uid=new_uid, gid=new_gid)
    return 0


def _asked(value: int) -> int | None:
    number = signed(value, 32)
    return None if number == -1 else number & 0xFFFFFFFF


@CALLS.add("setuid")
def setuid(thread: Thread, uid: int) -> int:
    """setuid(2)."""
    return _become(thread, uid & 0xFFFFFFFF, None)


@CALLS.add("setgid")
def setgid(thread: Thread, gid: int) -> int:
    """setgid(2)."""
    return _become(thread, None, gid & 0xFFFFFFFF)


@CALLS.add("setreuid", "setresuid")
def setresuid(thread: Thread, real: int, effective: int) -> int:
    """setresuid(2): the effective id counts, and the real one when that is left."""
    chosen = _asked(effective)
    return _become(thread, _asked(real) if chosen is None else chosen, None)


@CALLS.add("setregid", "setresgid")
def setresgid(thread: Thread, real: int, effective: int) -> int:
    """setresgid(2): the effective id counts, and the real one when that is left."""
    chosen = _asked(effective)
    return _become(thread, None, _asked(real) if chosen is None else chosen)


@CALLS.add("getgroups")
def getgroups(thread: Thread, size: int, address: int) -> Step[int]:
    """getgroups(2)."""
    groups = thread.process.view.who.groups
    if signed(size, 32) < 0 or 0 < size < len(groups):
        raise Errno(errno.EINVAL)
    if size:
        yield from user.write(thread, address, struct.pack(f"<{len(groups)}I", *groups))
    return len(groups)


@CALLS.add("setgroups")
def setgroups(thread: Thread, size: int, address: int) -> Step[int]:
    """setgroups(2)."""
    who = thread.process.view.who
    if not who.is_root:
        raise Errno(errno.EPERM)
    if not 0 <= signed(size, 32) <= _MAX_GROUPS:
        raise Errno(errno.EINVAL)
    data = yield from user.read(thread, address, 4 * size)
    thread.process.view.who = replace(who, groups=struct.unpack(f"<{size}I", data))
    return 0
