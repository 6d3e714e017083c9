"""Docker for the tests: the images of this tree, single layers, and the whole stack behind ports of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.layers import LAYERS, ROOT, Layers, Stack
from tests.ports import take

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # its image would have to be fetched


@pytest.fixture(scope="session")
def images() -> None:
    """Builds the six images of this tree; skips where no Docker answers."""
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no docker command")
    if asked.returncode:
        pytest.skip(f"no Docker answers: {asked.stderr.strip().splitlines()[-1:]}")
    if "LAMINA_BASE" not in os.environ:
        made = subprocess.run([ROOT / ".ci/images"], stdout=subprocess.PIPE, text=True)
        if made.returncode:
            pytest.skip("no base image: neither a registry of images nor a Debian mirror answers")
        os.environ["LAMINA_BASE"] = made.stdout.strip()
    built = subprocess.run(["docker", "compose", "build"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]


@pytest.fixture
def layers(images: None) -> Iterator[Layers]:
    """Returns what starts single layers in containers of one network; they are removed after the test."""
    folder = Path(tempfile.mkdtemp(prefix="lamina-e2e-", dir="/dev/shm"))
    folder.chmod(0o777)
    with Layers(folder) as made:
        yield made
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def compose(images: None) -> Iterator[Stack]:
    """Returns the whole stack, started by `docker compose up --wait` under a name and on ports of its own."""
    from testcontainers.compose import DockerCompose

    ports = {layer: port for port, layer in enumerate(LAYERS, take(len(LAYERS)))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPOSE_PROJECT_NAME", f"lamina-test-{os.getpid()}")
        for layer, port in ports.items():
            patch.setenv(f"LAMINA_PORT_{layer.upper().replace('-', '_')}", str(port))
        with DockerCompose(ROOT, wait=True) as running:
            yield Stack(running, {layer: f"127.0.0.1:{port}" for layer, port in ports.items()})


@pytest.fixture
def grpcurl() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function that runs grpcurl without TLS."""
    found = shutil.which("grpcurl", path=f"{Path(os.sys.executable).parent}:{os.environ['PATH']}")  # type: ignore[attr-defined]
    assert found is not None, "grpcurl comes with the development tools"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([found, "-plaintext", *words], capture_output=True, text=True, timeout=30)

    return run
