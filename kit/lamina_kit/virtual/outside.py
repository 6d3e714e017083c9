"""What a loop in virtual time does not have: the outside world. Each such method refuses and says why.

Sockets, processes, signals and threads run in real time: waiting for one would stop virtual time, or make its history
depend on the machine. The gateway keeps them on a real loop beside (`docs/adr/0005-time.md`).
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from lamina_kit.errors import Unimplemented


def _refuse(what: str, next_step: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise Unimplemented(
            f"A loop in virtual time has no {what}: it would follow the machine's time and not the stack's.",
            reason="VIRTUAL_LOOP_WITHOUT_OUTSIDE",
            next_step=next_step,
        )

    refuse.__doc__ = f"Refuses: there are no {what} in virtual time."
    return refuse


_SOCKETS = _refuse("sockets", "Serve the outside on a real loop and inject its messages (the gateway does).")
_PROCESSES = _refuse("processes", "Start processes on a real loop.")
_SIGNALS = _refuse("signals", "Handle signals on a real loop.")
_THREADS = _refuse("threads", "Do the work inline, or before the loop runs.")


class NoOutside(asyncio.AbstractEventLoop):
    """The part of an event loop that virtual time refuses."""

    run_in_executor = _THREADS
    set_default_executor = _THREADS
    getaddrinfo = getnameinfo = _SOCKETS
    create_connection = create_server = create_datagram_endpoint = _SOCKETS
    create_unix_connection = create_unix_server = connect_accepted_socket = _SOCKETS
    sendfile = start_tls = _SOCKETS
    add_reader = remove_reader = add_writer = remove_writer = _SOCKETS
    sock_recv = sock_recv_into = sock_recvfrom = sock_recvfrom_into = _SOCKETS
    sock_sendall = sock_sendto = sock_connect = sock_accept = sock_sendfile = _SOCKETS
    connect_read_pipe = connect_write_pipe = subprocess_shell = subprocess_exec = _PROCESSES
    add_signal_handler = remove_signal_handler = _SIGNALS

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 (asyncio has it)
        """Returns at once: there are no threads."""
