"""Plugging in on a virtual clock."""

from __future__ import annotations

from pathlib import Path

from lamina.mmu.v1 import policies_pb2 as pb
from tests.contract.mmu.refusal import expect_refused
from tests.contract.mmu.stack import Stack

from lamina_kit.virtual.loop import VirtualLoop


def test_a_virtual_clock_has_no_plugs(tmp_path: Path) -> None:
    """Its time is kept by no program outside: it installs an entry point instead."""

    async def scenario() -> None:
        async with Stack(tmp_path) as stack:
            call = stack.policies.Plug()
            await call.write(pb.PlugRequest(open=pb.PlugOpen(policy=pb.Policy(name="mine", summary="x"))))
            message = await expect_refused(call.read(), "FAILED_PRECONDITION", "CLOCK_VIRTUAL")
            assert "lamina.policies" in message

    loop = VirtualLoop(1, strict=True)
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()
