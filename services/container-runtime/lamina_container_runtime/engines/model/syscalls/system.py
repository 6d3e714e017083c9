"""The system: names, limits, random bytes, thread set-up, futexes."""

from __future__ import annotations

import errno
import struct

from lamina_container_runtime.engines.model.kernel.abi import Errno, signed, unpack_timespec
from lamina_container_runtime.engines.model.kernel.memory import user
from lamina_container_runtime.engines.model.kernel.processes.loader import STACK_BYTES
from lamina_container_runtime.engines.model.kernel.processes.thread import Thread
from lamina_container_runtime.engines.model.kernel.procfs.system_texts import RELEASE, VERSION
from lamina_container_runtime.engines.model.syscalls.registry import Calls
from lamina_kit.bus.run_page import DIRTY_SEGMENTS
from lamina_kit.effects import Step
from lamina_kit.paging import is_user

CALLS = Calls()
_INFINITY = 2**64 - 1
_MAX_RANDOM = 1 << 20
_ARCH_SET_GS, _ARCH_SET_FS, _ARCH_GET_FS, _ARCH_GET_GS = 0x1001, 0x1002, 0x1003, 0x1004
_RLIMIT_STACK, _RLIMIT_CORE, _RLIMIT_NPROC, _RLIMIT_NOFILE, _RLIMITS = 3, 4, 6, 7, 16
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_REQUEUE, _FUTEX_CMP_REQUEUE = 0, 1, 3, 4
_FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET, _FUTEX_FLAGS, _FUTEX_CLOCK_REALTIME = 9, 10, 0x180, 0x100
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_DUMPABLE, _PR_GET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 15, 16, 4, 3, 38
_PR_GET_NO_NEW_PRIVS, _PR_SET_PDEATHSIG, _PR_SET_VMA = 39, 1, 0x53564D41


@CALLS.add("uname")
def uname(thread: Thread, address: int) -> Step[int]:
    """uname(2): the host name is the sandbox's."""
    fields = ("Linux", thread.process.container.hostname, RELEASE, VERSION, "x86_64", "(none)")
    data = b"".join(field.encode(errors="surrogateescape")[:64].ljust(65, b"\0") for field in fields)
    yield from user.write(thread, address, data)
    return 0


@CALLS.add("sysinfo")
def sysinfo(thread: Thread, address: int) -> Step[int]:
    """sysinfo(2)."""
    container = thread.process.container
    total = container.memory_limit or thread.kernel.total_memory
    uptime = thread.kernel.clock.now_ns() // 10**9
    data = struct.pack(
        "<q3Q6QHHIQQI", uptime, 0, 0, 0, total, total, 0, 0, 0, 0, len(container.pids.threads), 0, 0, 0, 0, 1
    )
    yield from user.write(thread, address, data.ljust(112, b"\0"))
    return 0


@CALLS.add("getrandom")
def getrandom(thread: Thread, buffer: int, count: int, flags: int) -> Step[int]:
    """getrandom(2), at most 1 MiB a call."""
    if flags & ~7:
        raise Errno(errno.EINVAL)
    count = min(count, _MAX_RANDOM)
    if not is_user(buffer, count):
        raise Errno(errno.EFAULT)
    yield from user.write(thread, buffer, thread.kernel.rng.bytes(count))
    return count


@CALLS.add("arch_prctl")
def arch_prctl(thread: Thread, code: int, address: int) -> Step[int]:
    """arch_prctl(2): the bases of FS and GS."""
    page = thread.page
    if code in (_ARCH_SET_FS, _ARCH_SET_GS):
        if not is_user(address):
            raise Errno(errno.EPERM)
        if code == _ARCH_SET_FS:
            page.fs_base = address
        else:
            page.gs_base = address
        page.dirty |= DIRTY_SEGMENTS
        return 0
    if code in (_ARCH_GET_FS, _ARCH_GET_GS):
        value = page.fs_base if code == _ARCH_GET_FS else page.gs_base
        yield from user.write(thread, address, struct.pack("<Q", value))
        return 0
    raise Errno(errno.EINVAL)


@CALLS.add("prctl")
def prctl(thread: Thread, option: int, value: int) -> Step[int]:
    """prctl(2): names, and what is the same for all (no new privileges, not dumpable)."""
    option = signed(option, 32)
    if option == _PR_SET_NAME:
        name = yield from user.read(thread, value, 1)
        name = (yield from user.cstring(thread, value, 4096)).encode(errors="surrogateescape") if name else b""
        thread.process.name = name[:15].decode(errors="surrogateescape")
        return 0
    if option == _PR_GET_NAME:
        name = thread.process.name.encode(errors="surrogateescape")[:15].ljust(16, b"\0")
        yield from user.write(thread, value, name)
        return 0
    if option in (_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_PDEATHSIG):
        return 0
    if option == _PR_GET_NO_NEW_PRIVS:
        return 1
    raise Errno(errno.EINVAL)


@CALLS.add("prlimit64")
def prlimit64(thread: Thread, pid: int, resource: int, new: int, old: int) -> Step[int]:
    """prlimit(2) of the process itself: limits of descriptors can be changed."""
    if signed(pid, 32) not in (0, thread.process.pid):
        raise Errno(errno.ESRCH if thread.process.view.who.is_root else errno.EPERM)
    if not 0 <= resource < _RLIMITS:
        raise Errno(errno.EINVAL)
    before = _limit(thread, resource)
    if new:
        soft, hard = yield from user.words(thread, new, 2)
        if soft > hard or (hard > before[1] and not thread.process.view.who.is_root):
            raise Errno(errno.EINVAL if soft > hard else errno.EPERM)
        if resource == _RLIMIT_NOFILE:
            thread.process.fds.limit = min(soft, 1 << 20)
    if old:
        yield from user.write(thread, old, struct.pack("<QQ", *before))
    return 0


def _limit(thread: Thread, resource: int) -> tuple[int, int]:
    if resource == _RLIMIT_STACK:
        return STACK_BYTES, _INFINITY
    if resource == _RLIMIT_CORE:
        return 0, 0
    if resource == _RLIMIT_NPROC:
        limit = thread.process.container.pids.limit.limit
        return limit, limit
    if resource == _RLIMIT_NOFILE:
        return thread.process.fds.limit, 1 << 20
    return _INFINITY, _INFINITY


@CALLS.add("getrlimit")
def getrlimit(thread: Thread, resource: int, address: int) -> Step[int]:
    """getrlimit(2)."""
    return (yield from prlimit64(thread, 0, resource, 0, address))


@CALLS.add("setrlimit")
def setrlimit(thread: Thread, resource: int, address: int) -> Step[int]:
    """setrlimit(2)."""
    return (yield from prlimit64(thread, 0, resource, address, 0))


@CALLS.add("futex")
def futex(thread: Thread, address: int, operation: int, value: int, timeout: int, second: int, bits: int) -> Step[int]:
    """futex(2): wait, wake and requeue, private to an address space."""
    command = operation & 0xFFFFFFFF & ~_FUTEX_FLAGS
    futexes, space = thread.kernel.futexes, thread.memory.space.name
    mask = bits & 0xFFFFFFFF if command in (_FUTEX_WAIT_BITSET, _FUTEX_WAKE_BITSET) else 0xFFFFFFFF
    if address & 3 or not mask:
        raise Errno(errno.EINVAL)
    if command in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET):
        timeout_ns = unpack_timespec((yield from user.read(thread, timeout, 16))) if timeout else None
        if timeout_ns is not None and command == _FUTEX_WAIT_BITSET:
            clock = thread.kernel.clock
            now = clock.wall_ns() if operation & _FUTEX_CLOCK_REALTIME else clock.now_ns()
            timeout_ns = max(0, timeout_ns - now)
        return (yield from futexes.wait(thread, address, value, mask, timeout_ns))
    if command in (_FUTEX_WAKE, _FUTEX_WAKE_BITSET):
        return futexes.wake(space, address, max(0, signed(value, 32)), mask)
    if command in (_FUTEX_REQUEUE, _FUTEX_CMP_REQUEUE):
        if command == _FUTEX_CMP_REQUEUE:
            word = yield from user.read(thread, address, 4)
            if struct.unpack("<I", word)[0] != bits & 0xFFFFFFFF:
                raise Errno(errno.EAGAIN)
        return futexes.requeue(space, address, max(0, signed(value, 32)), max(0, signed(timeout, 32)), second)
    raise Errno(errno.ENOSYS)


@CALLS.add("sched_getaffinity")
def sched_getaffinity(thread: Thread, pid: int, size: int, address: int) -> Step[int]:
    """sched_getaffinity(2): all cores; returns the bytes written."""
    if size < 8 or size % 8:
        raise Errno(errno.EINVAL)
    yield from user.write(thread, address, struct.pack("<Q", (1 << min(64, thread.kernel.cores)) - 1))
    return 8


@CALLS.add("getcpu")
def getcpu(thread: Thread, cpu: int, node: int) -> Step[int]:
    """getcpu(2): core 0 of node 0; a thread is told nothing of where it runs."""
    for address in (cpu, node):
        if address:
            yield from user.write(thread, address, bytes(4))
    return 0


@CALLS.add("set_robust_list")
def set_robust_list(thread: Thread, head: int, size: int) -> int:
    """set_robust_list(2): the list is accepted; it matters for locks between processes only."""
    if size != 24:
        raise Errno(errno.EINVAL)
    return 0


@CALLS.add("rseq", "clone3")
def not_offered(thread: Thread) -> int:
    """Newer calls that programs try first and do without."""
    raise Errno(errno.ENOSYS)


@CALLS.add("socket", "socketpair")
def socket(thread: Thread) -> int:
    """Sockets: no address family is there."""
    raise Errno(errno.EAFNOSUPPORT)


@CALLS.add("sethostname", "setdomainname", "mount", "umount2", "pivot_root", "reboot", "unshare", "setns")
def not_permitted(thread: Thread) -> int:
    """What needs a capability that containers do not have."""
    raise Errno(errno.EPERM)
