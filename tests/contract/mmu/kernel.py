"""What tests of the engine on the kernel share: its stack, and processes to attach to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from lamina.mmu.v1 import mmu_pb2 as pb
from lamina.mmu.v1 import ranges_pb2 as ranges
from tests.contract.mmu.on_kernel import skip_what_cannot_run
from tests.contract.mmu.stack import Stack

from lamina_mmu.engines.linux.engine import LinuxEngine


@pytest.fixture
async def kernel(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    """Returns an MMU on the machine's kernel."""
    reasons = LinuxEngine.missing()
    if reasons:
        pytest.skip(f"engine linux: {'; '.join(reasons)}")
    async with Stack(tmp_path, engine="linux") as made:
        skip_what_cannot_run(request.function.__name__, made)
        yield made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Returns a process that is nobody's space yet, and whose memory does not change by itself."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"loaded\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"loaded\n"  # its libraries are mapped; now it waits for more
        yield process
        process.kill()


@pytest.fixture
def zombie() -> Iterator[int]:
    """Returns a process that has ended, and was not waited for."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def is_there(pid: int) -> bool:
    """Returns whether there is a process, a zombie among them."""
    return Path(f"/proc/{pid}").exists()


def mapped_starts(pid: int) -> list[int]:
    """Returns where the mappings of a process begin, in the lower half."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [start for line in lines if (start := int(line.partition("-")[0], 16)) < 1 << 47]


def processes_of(stack: Stack) -> list[int]:
    """Returns the processes of the spaces that there are."""
    return [space.pid for space in stack.service.host.engine.state.spaces]


async def attach(stack: Stack, pid: int, **fields: Any) -> pb.Space:
    """Attaches to a process."""
    made: pb.Space = await stack.spaces.AttachProcess(ranges.AttachProcessRequest(pid=pid, **fields))
    return made
