"""A machine whose cores are processors of the host, for tests of the engine `kvm`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.contract.hardware.conftest import CODE, Bench, Guest, power_on

from lamina_kit.clock import RealClock
from lamina_kit.engines import engines_of

NOTHING = pb.Intercepts(exceptions=0, cpuid=False, syscall=False)
"""What a context on KVM can leave to exit beside what always does: nothing."""


@pytest.fixture(params=["kvm"])
def variant(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Returns the engine; skips with its reason where it cannot run."""
    reasons = engines_of("hardware")[request.param].missing()
    if reasons:
        pytest.skip("; ".join(reasons))
    return request.param, "auto"


@pytest.fixture
async def bench(variant: tuple[str, str], tmp_path: Path) -> AsyncIterator[Bench]:
    """Returns a machine of two cores."""
    service, bench = await power_on(tmp_path, variant[0], RealClock(), cores=2)
    bench.service = service  # type: ignore[attr-defined]
    yield bench
    await service.stop()


async def guest_of(bench: Any, code: str | bytes, **wish: Any) -> Guest:
    """Returns a guest at ring 0 that runs a program, given by name or as bytes."""
    if isinstance(code, str):
        made: Guest = await bench.guest(code, intercepts=NOTHING, **wish)
        return made
    made = await bench.guest("hlt", intercepts=NOTHING, **wish)
    made.put(KERNEL_AT, code)
    return made


KERNEL_AT = 0xFFFF_8000_0000_0000
assert CODE
