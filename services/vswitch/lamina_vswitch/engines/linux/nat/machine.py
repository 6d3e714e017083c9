"""What translation by the kernel needs of a machine: forwarding, tracking that counts, and one table a network.

What was set before is written at each table, as its comment, and comes back with the last table that goes. A device
goes with its process, so a table without one is left from a process that was killed: whoever comes next takes it away.

Source: Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst; include/uapi/linux/netfilter/nf_tables.h of
Linux 6.18; libnftnl, udata.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lamina_kit.errors import PermissionDenied
from lamina_vswitch.engines.linux.namespace import Namespace
from lamina_vswitch.engines.linux.nat.rules import DEVICE_PREFIX, TABLE_PREFIX, NatWanted, removal, ruleset, table_of
from lamina_vswitch.engines.linux.netlink import links
from lamina_vswitch.engines.linux.netlink.requests import DUMP, Netlink, attribute, attributes
from lamina_vswitch.engines.linux.nft import program
from lamina_vswitch.engines.linux.refusal import KernelRefusal

_NETFILTER = 12
_NEW_TABLE, _GET_TABLE, _GET_OBJECT = 10 << 8 | 0, 10 << 8 | 1, 10 << 8 | 19
_GENERIC = struct.Struct("=BBH")
_HEADER = _GENERIC.pack(socket.AF_INET, 0, 0)
_TABLE_NAME, _TABLE_USERDATA = 1, 6
_OBJECT_TABLE, _OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 1, 2, 3, 4
_COUNTER_TYPE = (1).to_bytes(4, "big")
_PACKETS = 2
_TOLD_OF_RULES = 1 << 6
_DELETED_TABLE = 10 << 8 | 2
_COMMENT = 0
_LONGEST_WAIT_S, _LOOK_AGAIN_S = 2.0, 0.005
"""A change takes some 20 ms. Nobody else is served while one waits, so it is not waited for who never lets go."""
_FORWARD, _REDIRECTS = "net/ipv4/ip_forward", "net/ipv4/conf/all/accept_redirects"
_SWITCHED = (_FORWARD, "net/netfilter/nf_conntrack_acct", "net/netfilter/nf_conntrack_timestamp")
"""Switched on while a table is there: the machine forwards; flows have counts, and the time of their start."""
_SETTINGS = (*_SWITCHED, _REDIRECTS)
"""What is set again at the end, in this order: when forwarding is switched off, the kernel believes redirects, though
the machine may have been told not to (net/ipv4/devinet.c, inet_forward_change)."""


class GivenNamespace(Namespace):
    """A namespace that is there: the one at `path`, such as `/run/netns/blue`; empty: that of this thread."""

    def __init__(self, path: str = "") -> None:
        """Open it. Raises Unavailable `KERNEL_REFUSED` when there is none."""
        try:
            self.file = os.open(path or "/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelRefusal(f"the network namespace {path}", error.errno or 0) from error


class NatMachine:
    """A machine, or a namespace of it, that translates."""

    def __init__(self, path: str = "") -> None:
        """Look into the namespace at `path`. Raises Unavailable `KERNEL_REFUSED`."""
        self.namespace = GivenNamespace(path)
        self._before: dict[str, str] = {}
        self._depth = 0
        self._is_patient = True
        try:
            with self.namespace.inside():
                self.netlink, self.netfilter = Netlink(), Netlink(_NETFILTER)
                self.ears = Netlink(_NETFILTER, groups=_TOLD_OF_RULES)
        except BaseException:
            self.namespace.close()
            raise

    def close(self) -> None:
        """Let go of it; tables stay. Idempotent."""
        self.ears.close()
        self.netlink.close()
        self.netfilter.close()
        self.namespace.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have no other service look at the settings of this machine, or change them, for the length of a block.

        The lock is on the namespace itself, so it leaves no file, and ends with the process. It may be taken again
        within. Raises Unavailable `KERNEL_REFUSED` when another process does not let go: after two seconds, and from
        then on at once, until the lock was had again.
        """
        if not self._depth:
            self._lock()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                fcntl.flock(self.namespace.file, fcntl.LOCK_UN)

    def _lock(self) -> None:
        late = time.monotonic() + (_LONGEST_WAIT_S if self._is_patient else 0)
        while True:
            try:
                fcntl.flock(self.namespace.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= late:
                    self._is_patient = False
                    raise KernelRefusal("this machine's settings", errno.EBUSY, "another process has them") from None
                time.sleep(_LOOK_AGAIN_S)
            else:
                self._is_patient = True
                return

    def clean(self) -> list[str]:
        """Take away the tables of processes that are gone; return their names."""
        with self.locked():
            dead = [table for table in self._tables() if not self._has_device(table)]
            for table in dead:
                self._drop(table)
            return dead

    def set(self, wanted: NatWanted, *, recount: bool = False, gone: tuple[str, ...] = ()) -> None:
        """Let a network be translated like this, from the next flow on; `recount` and `gone` as in `ruleset`.

        Raises FailedPrecondition `NFT_REFUSED`, PermissionDenied `SETTINGS_FORBIDDEN`, Unavailable `KERNEL_REFUSED`.
        """
        with self.locked():
            before = self.before()
            rules = ruleset(wanted, _comment(before), recount=recount, gone=gone)
            program.apply(self.namespace, rules, "a network's translation")
            self._before = before
            self._switch(dict.fromkeys(_SWITCHED, "1"))

    def unset(self, device: str) -> None:
        """Translate a network no longer. What was set on the machine before the first one is set again. Idempotent."""
        table = table_of(device)
        with self.locked():
            if table in self._tables():
                self._drop(table)
            elif not self._tables():
                self._switch(self._before)
                self._before = {}

    def lacks(self, device: str) -> bool:
        """Tell whether somebody took the table of a device away, as who flushes all rules of a machine does."""
        return table_of(device) not in self._tables()

    def heard_of_removal(self) -> bool:
        """Tell whether a table went since the last call; it is so when more was told than there was room for."""
        answers = self.ears.heard()
        return answers is None or any(kind == _DELETED_TABLE for kind, _ in answers)

    def before(self) -> dict[str, str]:
        """Return what was set before anything here was: as a table tells it, or what is set now."""
        for comment in self._tables().values():
            return _settings_of(comment)
        if self._before:
            return self._before  # the tables were taken away by somebody, and come again
        found: dict[str, str] = {}
        with self.namespace.inside():
            for name in _SETTINGS:
                setting = Path("/proc/sys", name)
                found[name] = setting.read_text().strip() if setting.exists() else "0"
        if found[_FORWARD] != "0":
            del found[_REDIRECTS]  # it does not change then, and is nobody's but the machine's
        return found

    def reader(self) -> Netlink:
        """Return a socket of its own for who reads what is tracked. Raises Unavailable `KERNEL_REFUSED`."""
        with self.namespace.inside():
            return Netlink(_NETFILTER)

    def packets(self, device: str, counter: str) -> int:
        """Return what a counter of a table has counted. Raises Unavailable `KERNEL_REFUSED` when it is gone."""
        body = _HEADER + attribute(_OBJECT_TABLE, table_of(device))
        body += attribute(_OBJECT_NAME, counter) + attribute(_OBJECT_TYPE, _COUNTER_TYPE)
        for _, content in self.netfilter.ask(_GET_OBJECT, body):
            data = attributes(attributes(content, _GENERIC.size)[_OBJECT_DATA])
            return int.from_bytes(data[_PACKETS], "big")
        return 0

    def _drop(self, table: str) -> None:
        comment = self._tables()[table]
        program.apply(self.namespace, removal(DEVICE_PREFIX + table.removeprefix(TABLE_PREFIX)), "a translation")
        if not self._tables():
            self._switch(_settings_of(comment))
            self._before = {}

    def _has_device(self, table: str) -> bool:
        try:
            links.index_of(self.netlink, DEVICE_PREFIX + table.removeprefix(TABLE_PREFIX))
        except KernelRefusal as refusal:
            if refusal.number != errno.ENODEV:
                raise
            return False
        return True

    def _tables(self) -> dict[str, str]:
        """Return the comments of the tables of every network that is translated here, by their names, sorted."""
        found: dict[str, str] = {}
        for kind, content in self.netfilter.ask(_GET_TABLE, _HEADER, DUMP):
            told = attributes(content, _GENERIC.size) if kind == _NEW_TABLE else {}
            name = told.get(_TABLE_NAME, b"").rstrip(b"\0").decode(errors="replace")
            if name.startswith(TABLE_PREFIX):
                found[name] = _comment_in(told.get(_TABLE_USERDATA, b""))
        return dict(sorted(found.items()))

    def _switch(self, settings: Mapping[str, str]) -> None:
        """Set what is not as it shall be. Raises PermissionDenied `SETTINGS_FORBIDDEN`."""
        with self.namespace.inside():
            for name, value in settings.items():
                setting = Path("/proc/sys", name)
                try:
                    if setting.exists() and setting.read_text().strip() != value:
                        setting.write_text(value)
                except OSError as error:
                    raise PermissionDenied(
                        f"This process may not set {name.replace('/', '.')} to {value}: {error.strerror}.",
                        reason="SETTINGS_FORBIDDEN",
                        next_step="Set it by hand, or start the service where it may write /proc/sys.",
                    ) from error


def _comment(settings: Mapping[str, str]) -> str:
    """Return settings as a comment, by the last part of their names: no more than 128 characters are kept."""
    return "before: " + " ".join(f"{_short(name)}={settings[name]}" for name in _SETTINGS if name in settings)


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _settings_of(comment: str) -> dict[str, str]:
    """Return the settings that a comment tells; of one that somebody else wrote those that can be read."""
    pairs = (word.split("=", 1) for word in comment.split() if "=" in word)
    told = {name: value for name, value in pairs if value in ("0", "1")}
    return {name: told[_short(name)] for name in _SETTINGS if _short(name) in told}


def _comment_in(userdata: bytes) -> str:
    """Return the comment in a table's user data: type, length, text, in a byte, a byte, and as many as that."""
    at = 0
    while at + 2 <= len(userdata):
        kind, size = userdata[at], userdata[at + 1]
        if kind == _COMMENT:
            return userdata[at + 2 : at + 2 + size].rstrip(b"\0").decode(errors="replace")
        at += 2 + size
    return ""
