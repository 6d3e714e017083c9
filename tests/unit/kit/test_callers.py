"""Who is at the other end of a connection, and whom a server lets in, on real sockets of this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from lamina_kit.errors import InvalidArgument, PermissionDenied
from lamina_kit.operations import settings
from lamina_kit.security import callers as rule
from lamina_kit.security.callers import Callers, Users, uid_of, user_name
from lamina_kit.security.socket_owner import Connection, by_text, connections_of, owner, place

OTHER = 4_000_000_001
"""A uid that nobody has."""
LOOPBACK = [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]


class Context:
    """What a handler is told of its call: the place of the caller, and what was seen of a certificate."""

    def __init__(self, end: socket.socket, kind: bytes = b"insecure") -> None:
        host, port = end.getsockname()[:2]
        family = "ipv6" if end.family == socket.AF_INET6 else "ipv4"
        self._peer = f"{family}:%5B{host}%5D:{port}" if family == "ipv6" else f"{family}:{host}:{port}"
        self._kind = kind

    def peer(self) -> str:
        """Returns the place as gRPC writes it."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """Returns the kind of the connection."""
        return {"transport_security_type": [self._kind]}


@contextmanager
def connected(host: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> Iterator[Any]:
    """Yields the two ends of a connection: the caller's, and the server's."""
    with ExitStack() as ends:
        server = ends.enter_context(socket.create_server((host, 0), family=family))
        caller = ends.enter_context(socket.create_connection(server.getsockname()[:2]))
        accepted, _ = server.accept()
        ends.enter_context(accepted)
        yield caller, accepted


@pytest.mark.parametrize(("host", "family"), LOOPBACK, ids=["ipv4", "ipv6"])
def test_the_kernel_names_the_owner(host: str, family: socket.AddressFamily) -> None:
    """Of a connection from a place this process finds its own end alone, and the kernel says whose the other is."""
    with connected(host, family) as (caller, accepted), connected(host, family):
        (found,) = connections_of(place(*caller.getsockname()[:2]))
        assert found.fd == accepted.fileno() and found.stands()
        assert owner(found) == os.geteuid()


@pytest.mark.parametrize(("host", "family"), LOOPBACK, ids=["ipv4", "ipv6"])
def test_both_tables_of_the_kernel_agree(host: str, family: socket.AddressFamily) -> None:
    """/proc/net/tcp says the same of a socket as the question over netlink, and as little of one that is none."""
    with connected(host, family) as (caller, _):
        (found,) = connections_of(place(*caller.getsockname()[:2]))
        assert by_text(found.peer, found.local) == owner(found) == os.geteuid()
        nowhere = Connection(found.fd, found.inode, (host, 1), found.local)
        assert by_text(nowhere.peer, nowhere.local) is owner(nowhere) is None


def test_an_address_in_the_clothes_of_ipv6_is_the_same_place() -> None:
    """A server on all addresses sees 127.0.0.1 as ::ffff:127.0.0.1, and finds the caller all the same."""
    assert place("::ffff:127.0.0.1", 7) == place("127.0.0.1", 7) == ("127.0.0.1", 7)
    with ExitStack() as ends:
        server = ends.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        caller = ends.enter_context(socket.create_connection(("127.0.0.1", server.getsockname()[1])))
        ends.enter_context(server.accept()[0])
        (found,) = connections_of(place(*caller.getsockname()))
        assert found.local[0] == "127.0.0.1" and owner(found) == os.geteuid()


def test_a_socket_that_was_closed_has_no_owner() -> None:
    """A caller who closed its end before we asked is unknown, whatever uid the kernel still tells."""
    with connected() as (caller, _):
        (found,) = connections_of(place(*caller.getsockname()))
        caller.close()
        assert owner(found) is None
        assert by_text(found.peer, found.local) is None


def test_our_end_is_told_from_another_socket_at_its_number() -> None:
    """A descriptor that was given to another socket is not the connection any more."""
    with connected() as (caller, accepted):
        (found,) = connections_of(place(*caller.getsockname()))
        number = accepted.fileno()
        with socket.socket() as other:
            os.dup2(other.fileno(), number)
            assert not found.stands()
        accepted.close()
        assert not found.stands()


def test_the_owner_and_those_who_are_allowed_may_call() -> None:
    """The user of the process, root, and who is named may call; nobody else."""
    users = Users(frozenset({OTHER}))
    assert users.may_call(os.geteuid()) and users.may_call(0) and users.may_call(OTHER)
    assert not users.may_call(OTHER - 1)


def test_who_may_not_call_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that is not allowed is refused by name, until the configuration names it; then the next call passes."""
    monkeypatch.setattr(rule, "owner", lambda connection: OTHER)
    callers = Callers("mmu")
    with connected() as (caller, _):
        context = Context(caller)
        with pytest.raises(PermissionDenied) as caught:
            callers.check(context)
        assert caught.value.reason == "CALLER_NOT_ALLOWED"
        assert str(OTHER) in caught.value.message and user_name(os.geteuid()) in caught.value.message
        assert "allow_users" in caught.value.next_step
        callers.users.allowed = frozenset({OTHER})
        callers.check(context)


def test_the_kernel_is_asked_once_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call of a connection costs no question; a new connection from the same port does."""
    asked: list[Connection] = []

    def counted(connection: Connection) -> int | None:
        asked.append(connection)
        return owner(connection)

    monkeypatch.setattr(rule, "owner", counted)
    callers = Callers("mmu")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = 0
        for round_ in (1, 2):
            with socket.socket() as caller:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME_WAIT at the port
                caller.bind(("127.0.0.1", port))
                port = caller.getsockname()[1]
                caller.connect(server.getsockname())
                with server.accept()[0]:
                    for _ in range(3):
                        callers.check(Context(caller))
            assert len(asked) == round_


@pytest.mark.parametrize("private", [False, True])
def test_an_unknown_caller_is_let_in_on_a_private_network_alone(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel shows no owner a caller is refused, unless a person said that the network is private."""
    monkeypatch.setattr(rule, "owner", lambda connection: None)
    callers = Callers("mmu", plain_network=private)
    with connected() as (caller, _):
        if private:
            callers.check(Context(caller))
            return
        with pytest.raises(PermissionDenied) as caught:
            callers.check(Context(caller))
        assert caught.value.reason == "CALLER_UNKNOWN" and "--plain-network" in caught.value.next_step


def test_a_private_network_does_not_let_in_other_users_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom the kernel does know is held to the rule also where the network is private."""
    monkeypatch.setattr(rule, "owner", lambda connection: OTHER)
    with connected() as (caller, _), pytest.raises(PermissionDenied):
        Callers("mmu", plain_network=True).check(Context(caller))


def test_a_certificate_says_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever showed a certificate of ours is let in, whatever user it is."""
    monkeypatch.setattr(rule, "owner", lambda connection: OTHER)
    with connected() as (caller, _):
        Callers("mmu").check(Context(caller, b"ssl"))


def test_a_unix_socket_is_its_user_s_by_its_mode() -> None:
    """A call over a UNIX socket is not asked after: the kernel lets only its user and root open one."""

    class Unix:
        def peer(self) -> str:
            """Says what gRPC says of every UNIX socket."""
            return "unix:"

    Callers("mmu").check(Unix())


def test_what_is_known_of_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts on connections that are gone are forgotten when there are many."""
    monkeypatch.setattr(rule, "MOST_KEPT", 3)
    callers = Callers("mmu")
    for _ in range(10):
        with connected() as (caller, _):
            callers.check(Context(caller))
            assert len(callers._known) <= 4


def test_users_are_given_by_name_or_number(tmp_path: Any) -> None:
    """`allow_users` takes names and numbers of users, from the file and from a variable; a wrong name is refused."""
    file = tmp_path / "lamina.toml"
    file.write_text(f'[operations]\nallow_users = ["root", "{OTHER}"]\n')
    assert settings.load(file, {}).uids() == {0, OTHER}
    assert settings.load(None, {"LAMINA_ALLOW_USERS": "root"}).uids() == {uid_of("root")} == {0}
    file.write_text('[operations]\nallow_users = ["no-such-user"]\n')
    with pytest.raises(InvalidArgument) as caught:
        settings.load(file, {})
    assert caught.value.reason == "OPERATIONS_INVALID" and "allow_users" in str(caught.value)
