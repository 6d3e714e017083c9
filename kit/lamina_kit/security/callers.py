"""Who may call a server on sockets: the user that runs it, root, and those whom its configuration names.

    callers = Callers("mmu", users)
    callers.check(context, method)          # around every call; raises PermissionDenied

    the connection                          who calls
    UNIX socket                             its owner or root: the kernel lets nobody else open a socket of mode 0600
    TLS                                     whoever an authority of ours vouches for
    TCP inside this network namespace       the user who owns the other end, from the kernel's table of sockets
    any other TCP                           nobody, unless a person said that the network is private

Loopback keeps other machines out, not the other users of this one. The kernel is asked once a connection; a later call
costs one fstat(2), by which a port that is used anew is another connection. docs/adr/0017-operations.md
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from lamina_kit.errors import PermissionDenied
from lamina_kit.security.socket_owner import Connection, Place, connections_of, owner, place
from lamina_kit.telemetry import log

ENCRYPTED = [b"ssl"]
"""What gRPC calls the kind of a connection for which it has seen a certificate of ours."""
MOST_KEPT = 1024
"""Verdicts that are kept; when there are more, those of connections that are gone are forgotten."""


@dataclass
class Users:
    """Whom the configuration lets call beside the user of the process and root: uids, set anew by a reload."""

    allowed: frozenset[int] = frozenset()

    def may_call(self, uid: int) -> bool:
        """Says whether a user may call."""
        return uid in (0, os.geteuid()) or uid in self.allowed


@dataclass(frozen=True)
class Verdict:
    """What is known of the calls from one place: who it is, through which connections, and how it was found.

    `uid` is None where the kernel does not tell; `private` says that then the connection is a TLS one, or a network's
    that a person called private.
    """

    connections: tuple[Connection, ...]
    uid: int | None
    private: bool

    def stands(self) -> bool:
        """Says whether it still is of the connection that it was found for."""
        return bool(self.connections) and all(connection.stands() for connection in self.connections)


@dataclass
class Callers:
    """The rule of one server. `plain_network`: its networks beyond this machine are private."""

    layer: str
    users: Users = field(default_factory=Users)
    plain_network: bool = False
    _known: dict[str, Verdict] = field(default_factory=dict)

    def check(self, context: Any) -> None:
        """Raises `PermissionDenied` `CALLER_NOT_ALLOWED` or `CALLER_UNKNOWN` when the user of a call may not call."""
        peer: str = context.peer()
        if peer.startswith("unix:"):
            return
        known = self._known.get(peer)
        if known is None or not known.stands():
            known = self._known[peer] = self._look(peer, context)
            if not self._lets_in(known):
                log.logger(self.layer).warning("caller.refused", peer=peer, user=user_name(known.uid))
            self._forget()
        if not self._lets_in(known):
            raise self._refusal(known, peer)

    def _look(self, peer: str, context: Any) -> Verdict:
        """Asks the kernel who is at the other end. Of several connections from one place all must be one user's."""
        found = tuple(connections_of(_place(peer)))
        if context.auth_context().get("transport_security_type") == ENCRYPTED:
            return Verdict(found, None, True)
        uids = {owner(connection) for connection in found}
        return Verdict(found, uids.pop() if len(uids) == 1 else None, self.plain_network)

    def _lets_in(self, known: Verdict) -> bool:
        return known.private if known.uid is None else self.users.may_call(known.uid)

    def _forget(self) -> None:
        if len(self._known) > MOST_KEPT:
            self._known = {peer: verdict for peer, verdict in self._known.items() if verdict.stands()}

    def _refusal(self, known: Verdict, peer: str) -> PermissionDenied:
        ours = user_name(os.geteuid())
        if known.uid is None:
            return PermissionDenied(
                f"The {self.layer} service cannot know who calls from {unquote(peer)}: this kernel shows no owner.",
                reason="CALLER_UNKNOWN",
                next_step="Call over TLS; or, where the network between is private, serve with --plain-network.",
            )
        return PermissionDenied(
            f"The {self.layer} service is {ours}'s; the user {user_name(known.uid)} may not call it.",
            reason="CALLER_NOT_ALLOWED",
            next_step=f"Call as {ours}, or have {ours} name the user in `allow_users` of the section [operations].",
            user=user_name(known.uid),
        )


def uid_of(name: str) -> int | None:
    """Returns the number of a user who is given by name or by number; None for a name that nobody has."""
    try:
        return int(name) if name.isascii() and name.isdigit() else pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def user_name(uid: int | None) -> str:
    """Returns how people call a user: the name, or the number where there is no name."""
    if uid is None:
        return "unknown"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _place(peer: str) -> Place:
    """Returns the place that gRPC names `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return place(host.strip("[]"), int(port))
