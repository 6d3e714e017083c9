"""What a thread is told when the hardware goes away between two of its runs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from lamina.common.v1 import handle_pb2

from lamina_container_runtime.engines.model.effects import ContextRef
from lamina_container_runtime.io.machine.runs import Runs
from lamina_kit.errors import Unavailable


class EndedStream:
    """A run stream that has ended, as gRPC's calls are then."""

    async def write(self, request: Any) -> None:
        """Refuses, as a call that is done does."""
        raise asyncio.InvalidStateError("RPC already finished.")


async def test_a_stream_that_ended_before_the_run_is_a_lost_core() -> None:
    """The hardware may die while a thread waits for a system call: its next run says so with a reason."""
    cpu = SimpleNamespace(Run=lambda metadata: EndedStream())
    runs = Runs(SimpleNamespace(cpu=cpu, hardware_metadata=()))  # type: ignore[arg-type]
    handle = handle_pb2.Handle(id=7, generation=1)
    with pytest.raises(Unavailable) as caught:
        await runs.run(ContextRef("hosts/h1/contexts/c-7", handle, None))  # type: ignore[arg-type]
    assert caught.value.reason == "CORE_LOST"
