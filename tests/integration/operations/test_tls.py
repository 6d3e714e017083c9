"""TLS between services: who is let in, who is not and is told why, and certificates that are renewed under way."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from tests.certificates import LONG_AGO, TOMORROW, authority, issued
from tests.ports import take

from lamina_kit.clock import RealClock
from lamina_kit.errors import FailedPrecondition, LaminaError
from lamina_kit.layer.service import SERVER_OPTIONS, Served, serve
from lamina_kit.layer.state import LayerState
from lamina_kit.process.main import CANNOT_START, MISCONFIGURED, STOPPED
from lamina_kit.process.probe import probe
from lamina_kit.rng import Rng
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.status import rpc_error
from lamina_kit.security.tls_probe import diagnose
from lamina_kit.security.transport import PLAIN, Security, TlsFiles, bare

ADDRESS = "tls:127.0.0.1:0"
SMALL = {"LAMINA_HARDWARE_MEMORY_BYTES": str(64 << 20), "LAMINA_HARDWARE_CORES": "1"}


class Silent:
    """A service with nothing of its own."""

    layer = "mmu"
    service_names = ()

    def register(self, server: grpc.aio.Server) -> None:
        """Adds nothing."""

    async def start(self) -> None:
        """Does nothing."""

    async def stop(self) -> None:
        """Does nothing."""


async def served(files: TlsFiles, address: str = ADDRESS) -> Served:
    """Serves the common services of a layer with a certificate."""
    clock = RealClock()
    return await serve(Silent(), [address], LayerState("mmu", "h1", clock, Rng(1)), security=Security(files))


async def hello(channel: Any) -> str:
    """Returns which layer answers; fails as the call does."""
    request = layer_pb2.HandshakeRequest(caller="test", revision="1.0")
    return str((await layer_pb2_grpc.LayerStub(channel).Handshake(request, timeout=20)).layer)


async def answer(target: str, security: Security) -> str:
    """Returns which layer answers at an address."""
    async with connect(target, security=security) as channel:
        return await hello(channel)


async def test_both_sides_show_certificates(tmp_path: Path) -> None:
    """With certificates of one authority on both sides calls pass, at the address that the server tells."""
    server = await served(issued(tmp_path, "mmu"))
    assert server.addresses[0].startswith("tls:127.0.0.1:") and server.ports[0] > 0
    client = issued(tmp_path, "client")
    assert await answer(server.addresses[0], Security(client)) == "mmu"
    assert await diagnose(server.addresses[0], Security(client)) is None
    status = await asyncio.to_thread(probe, server.addresses[0], timeout_s=20, tls_dir=str(client.cert.parent))
    assert status == "SERVING"
    with pytest.raises(LaminaError) as caught:
        probe(server.addresses[0])
    assert caught.value.reason == "TLS_REQUIRED"
    assert await diagnose(f"tls:{'a' * 64}.example.org:1", Security(client)) is None
    await server.stop()


async def test_nobody_enters_without_a_certificate(tmp_path: Path) -> None:
    """Neither in the clear nor with TLS of one side only; who speaks plain is told that TLS is wanted."""
    server = await served(issued(tmp_path, "mmu"))
    plain = bare(server.addresses[0])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer(plain, PLAIN)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    told = await diagnose(plain, PLAIN)
    assert told is not None and told.reason == "PEER_WANTS_TLS"
    anonymous = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(plain, anonymous) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hello(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop()


async def test_a_server_does_not_start_with_what_cannot_work(tmp_path: Path) -> None:
    """An expired certificate is refused by name of its file, and nothing listens, on no address."""
    files = issued(tmp_path, "old", at=LONG_AGO)
    with pytest.raises(FailedPrecondition) as caught:
        await served(files)
    assert caught.value.reason == "CERTIFICATE_EXPIRED" and str(files.cert) in caught.value.message
    with pytest.raises(FailedPrecondition) as caught:
        connect("tls:127.0.0.1:1", security=Security(files))
    assert caught.value.reason == "CERTIFICATE_EXPIRED" and str(files.cert) in caught.value.message


class Careless:
    """A server that shows whatever certificate it is given, as one does whose certificate ends while it runs."""

    def __init__(self, files: TlsFiles, accepted: bytes) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), self._server)
        pair = [(files.key.read_bytes(), files.cert.read_bytes())]
        credentials = grpc.ssl_server_credentials(pair, accepted, require_client_auth=True)
        self.target = f"tls:127.0.0.1:{self._server.add_secure_port('0.0.0.0:0', credentials)}"

    async def __aenter__(self) -> str:
        await self._server.start()
        return self.target

    async def __aexit__(self, *ended: object) -> None:
        await self._server.stop(None)


async def explained(target: str, security: Security) -> LaminaError:
    """Returns why a call fails: gRPC's own words are of no use, the diagnosis has to be."""
    async with connect(target, security=security) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            checker: Any = health_pb2_grpc.HealthStub(channel)
            await checker.Check(health_pb2.HealthCheckRequest(), timeout=20)
    error = rpc_error(caught.value)
    assert error.code == "UNAVAILABLE" and error.reason == "RPC_UNAVAILABLE"
    told = await diagnose(target, security)
    assert told is not None and told.next_step, error
    return told


@pytest.mark.parametrize(("at", "reason"), [(LONG_AGO, "CERTIFICATE_EXPIRED"), (TOMORROW, "CERTIFICATE_NOT_YET_VALID")])
async def test_the_other_side_shows_one_out_of_its_time(tmp_path: Path, at: Any, reason: str) -> None:
    """The error names the server, the holder, and the time."""
    client = issued(tmp_path, "client")
    async with Careless(issued(tmp_path, "mmu", at=at), client.ca.read_bytes()) as target:
        told = await explained(target, Security(client))
    assert told.reason == reason and told.code == "UNAVAILABLE"
    assert target in told.message and "mmu" in told.message and "UTC" in told.message


async def test_the_other_side_shows_one_of_another_authority(tmp_path: Path) -> None:
    """The error names the issuer and the file of the authorities that are accepted."""
    client = issued(tmp_path / "ours", "client")
    authority(tmp_path / "theirs", "somebody else")
    async with Careless(issued(tmp_path / "theirs", "mmu"), client.ca.read_bytes()) as target:
        told = await explained(target, Security(client))
    assert told.reason == "CERTIFICATE_UNTRUSTED"
    assert "somebody else" in told.message and str(client.ca) in told.message


async def test_the_other_side_is_called_by_a_name_that_it_does_not_have(tmp_path: Path) -> None:
    """The error lists the names that it has."""
    client, files = issued(tmp_path, "client"), issued(tmp_path, "mmu")
    async with Careless(files, client.ca.read_bytes()) as target:
        told = await explained(target.replace("127.0.0.1", "127.0.0.2"), Security(client))
    assert told.reason == "CERTIFICATE_NAME_MISMATCH"
    assert "127.0.0.2" in told.message and "localhost" in told.message and "--san 127.0.0.2" in told.next_step


async def test_the_other_side_refuses_ours(tmp_path: Path) -> None:
    """It knows another authority: gRPC closes without a word, and the error says whose certificate it is about."""
    client = issued(tmp_path / "ours", "client")
    files = issued(tmp_path / "theirs", "mmu")
    client.ca.write_bytes(client.ca.read_bytes() + files.ca.read_bytes())
    async with Careless(files, files.ca.read_bytes()) as target:
        told = await explained(target, Security(client))
    assert told.reason == "CERTIFICATE_REFUSED" and str(client.cert) in told.message


async def test_the_other_side_speaks_plain(tmp_path: Path) -> None:
    """TLS against a plain port is told as that."""
    clock = RealClock()
    plain = await serve(Silent(), ["127.0.0.1:0"], LayerState("mmu", "h1", clock, Rng(1)))
    told = await explained(f"tls:{plain.addresses[0]}", Security(issued(tmp_path, "client")))
    assert told.reason == "PEER_WITHOUT_TLS"
    await plain.stop()


async def test_our_own_ends_while_we_run(tmp_path: Path) -> None:
    """The diagnosis looks at our own file first."""
    client = issued(tmp_path, "client")
    async with Careless(issued(tmp_path, "mmu"), client.ca.read_bytes()) as target:
        old = issued(tmp_path, "old", at=LONG_AGO)
        shutil.copy(old.cert, client.cert)
        shutil.copy(old.key, client.key)
        told = await diagnose(target, Security(client))
    assert told is not None and told.reason == "CERTIFICATE_EXPIRED" and str(client.cert) in told.message


async def test_nobody_there_is_not_blamed_on_certificates(tmp_path: Path) -> None:
    """A port on which nobody listens has no diagnosis."""
    assert await diagnose("tls:127.0.0.1:1", Security(issued(tmp_path, "client"))) is None


def shown_by(target: str, client: TlsFiles) -> int:
    """Returns the serial number of the certificate that a server shows."""
    from cryptography import x509

    host, _, port = bare(target).rpartition(":")
    assert client.ca.exists()
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode()).serial_number


def replace(files: TlsFiles, by: TlsFiles) -> None:
    """Puts other certificates in the places of files, as a renewal does."""
    for old, new in ((files.key, by.key), (files.cert, by.cert), (files.ca, by.ca)):
        scratch = old.with_suffix(".new")
        shutil.copy(new, scratch)
        scratch.replace(old)


async def test_renewed_certificates_are_taken_by_both_sides(tmp_path: Path) -> None:
    """Another authority altogether takes over without a restart: the same stub goes on, and the old one is out."""
    first, second = tmp_path / "first", tmp_path / "second"
    server, client = issued(first, "mmu"), issued(first, "client")
    running = await served(server)
    target = running.addresses[0]
    async with connect(target, security=Security(client)) as channel:
        stub = layer_pb2_grpc.LayerStub(channel)
        request = layer_pb2.HandshakeRequest(caller="test", revision="1.0")
        await stub.Handshake(request, timeout=20)
        before = await asyncio.to_thread(shown_by, target, client)
        late = issued(first, "late")
        replace(server, issued(second, "mmu"))
        assert await asyncio.to_thread(shown_by, target, client) != before
        await stub.Handshake(request, timeout=20)  # the connection that stands goes on
        replace(client, issued(second, "client"))
        await stub.Handshake(request, timeout=20)
    with pytest.raises(grpc.aio.AioRpcError):
        await answer(target, Security(late))
    await running.stop()


async def test_a_renewal_that_fails_leaves_the_old_one_at_work(tmp_path: Path) -> None:
    """Half of a renewal, and one that is broken, harm nobody."""
    server, client = issued(tmp_path, "mmu"), issued(tmp_path, "client")
    running = await served(server)
    before = await asyncio.to_thread(shown_by, running.addresses[0], client)
    for harm in (lambda: server.key.write_text("half a k"), server.cert.unlink):
        harm()
        assert await answer(running.addresses[0], Security(client)) == "mmu"
        assert await asyncio.to_thread(shown_by, running.addresses[0], client) == before
    await running.stop()


class Processes:
    """Starts service processes, which end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []

    def start(self, layer: str, *words: str) -> subprocess.Popen[str]:
        """Starts a layer's process."""
        command = [sys.executable, "-m", f"lamina_{layer}", "--state-dir", f"{self.folder}/{layer}"]
        command += ["--bus", f"{self.folder}/ram", *words]
        made = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **SMALL})
        self.running.append(made)
        return made

    def refused(self, layer: str, *words: str) -> tuple[int, str]:
        """Runs a layer's process that has to end by itself. Returns its status and its last words."""
        process = self.start(layer, *words)
        _, said = process.communicate(timeout=100)
        return process.returncode, said.splitlines()[-1]


@pytest.fixture
def processes(short_dir: Path) -> Iterator[Processes]:
    """A folder for processes."""
    made = Processes(short_dir)
    yield made
    for process in made.running:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_process_does_not_talk_plain_beyond_its_host(processes: Processes) -> None:
    """Listening on all addresses, and calling another host, need certificates: wrong flags, said so."""
    for layer, words in (("hardware", ("--listen", "0.0.0.0:0")), ("mmu", ("--upstream", "hardware=far:1"))):
        status, said = processes.refused(layer, "--listen", f"unix:{processes.folder}/s", *words)
        assert status == MISCONFIGURED and "TLS_REQUIRED" in said and "--plain-network" in said


def test_a_process_names_the_certificate_that_keeps_it_from_starting(processes: Processes, tmp_path: Path) -> None:
    """Expired, or not there: status 3 and the file."""
    old = issued(tmp_path, "old", at=LONG_AGO)
    status, said = processes.refused("hardware", "--listen", ADDRESS, "--tls-dir", str(old.cert.parent))
    assert status == CANNOT_START and "CERTIFICATE_EXPIRED" in said and str(old.cert) in said
    status, said = processes.refused("hardware", "--listen", ADDRESS, "--tls-dir", str(tmp_path))
    assert status == CANNOT_START and "TLS_FILE_MISSING" in said and str(tmp_path / "cert.pem") in said


async def test_two_processes_over_tls(processes: Processes, tmp_path: Path, eventually: Any) -> None:
    """A layer finds the one below; while its certificate is of another authority it waits and says whose is wrong."""
    listen = f"tls:127.0.0.1:{take(1)}"
    lower, upper = issued(tmp_path / "a", "hardware"), issued(tmp_path / "b", "mmu")
    hardware = processes.start("hardware", "--listen", listen, "--tls-dir", str(lower.cert.parent))
    socket = f"unix:{processes.folder}/mmu.sock"
    words = ("--listen", socket, "--upstream", f"hardware={listen}", "--tls-dir", str(upper.cert.parent))
    mmu = processes.start("mmu", *words)
    blocking: Any = grpc.insecure_channel(socket)
    with blocking as channel:
        stub: Any = layer_pb2_grpc.LayerStub(channel)

        def said() -> str:
            try:
                return str(stub.Handshake(layer_pb2.HandshakeRequest(caller="test", revision="1.0"), timeout=30).layer)
            except grpc.RpcError as error:
                return str(error)

        await eventually(lambda: f"no authority in {upper.ca}" in said(), "the wrong authority is told", 90)
        replace(upper, issued(tmp_path / "a", "mmu"))
        await eventually(lambda: said() == "mmu", "the layer starts once its certificate is right", 90)
    for process in (mmu, hardware):
        process.terminate()
        assert await asyncio.to_thread(process.wait, 60) == STOPPED
