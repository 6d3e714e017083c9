"""A plan of faults over real sockets: `--fault-plan` of a service process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.mmu.v1 import mmu_pb2, mmu_pb2_grpc
from tests.integration.split.test_process import Processes, serves

from lamina_kit.process.main import MISCONFIGURED
from lamina_kit.rpc.channel import connect
from lamina_kit.rpc.status import rpc_error

PAGE = 4096
BASE = 0x1000_0000
SHOOTDOWN = "lamina.hardware.v1.Cpu/Shootdown"


@pytest.fixture
def pair(short_dir: Path) -> Iterator[Processes]:
    """A folder for a hardware and an MMU process, which end with the test."""
    made = Processes(short_dir)
    yield made
    made.end()


def planned(pair: Processes, text: str) -> tuple[str, ...]:
    """Writes a plan; returns the words that give it to the MMU."""
    path = pair.folder / "plan.toml"
    path.write_text(text)
    return ("--upstream", f"hardware={pair.socket('hardware')}", "--fault-plan", str(path))


async def written_space(spaces: Any) -> Any:
    """Returns the handle of a space with one page that was written to."""
    wanted = mmu_pb2.Space(kind=mmu_pb2.Space.KIND_PROCESS, label="planned")
    handle = (await spaces.CreateSpace(mmu_pb2.CreateSpaceRequest(space=wanted))).handle
    both = mmu_pb2.Protection(read=True, write=True)
    request = mmu_pb2.MapRangeRequest(handle=handle, address=BASE, size_bytes=PAGE, protection=both, fixed=True)
    await spaces.MapRange(request)
    await spaces.WriteSpace(mmu_pb2.WriteSpaceRequest(handle=handle, address=BASE, data=b"x" * PAGE))
    return handle


async def faults_of(layer: Any) -> list[tuple[str, str]]:
    """Returns (event, rule) of what befell shootdowns, as the MMU's log has it."""
    listed = await layer.ListEvents(layer_pb2.ListEventsRequest(object=SHOOTDOWN, page_size=1000))
    return [(event.event, event.rule) for event in listed.events]


async def test_calls_between_processes_meet_the_plan(pair: Processes, holds: Any) -> None:
    """Lost twice, a shootdown is made again and gets through; late ones only take longer; the log tells each."""
    words = planned(
        pair,
        f'[[rule]]\nkind = "fail"\nmethod = "Cpu/Shootdown"\nlast_call = 2\n\n'
        f'[[rule]]\nkind = "delay"\nmethod = "/{SHOOTDOWN}"\nfirst_call = 3\nlast_call = 3\nmin_ns = 1000\n',
    )
    pair.start("hardware")
    pair.start("mmu", *words)
    await holds(lambda: serves(pair.socket("mmu")), bool, "the MMU serves")
    channel = connect(pair.socket("mmu"))
    try:
        spaces: Any = mmu_pb2_grpc.SpacesStub(channel)
        handle = await written_space(spaces)
        await spaces.UnmapRange(mmu_pb2.UnmapRangeRequest(handle=handle, address=BASE, size_bytes=PAGE))
        told = await faults_of(layer_pb2_grpc.LayerStub(channel))
        assert told == [("rpc.fail", "fault plan, rule 1")] * 2 + [("rpc.delay", "fault plan, rule 2")]
    finally:
        await channel.close()


async def test_what_never_gets_through_fails_loudly(pair: Processes, holds: Any) -> None:
    """A shootdown that is lost every time ends the call that needed it as UNAVAILABLE, and names who did not answer."""
    pair.start("hardware")
    pair.start("mmu", *planned(pair, '[[rule]]\nkind = "fail"\nlayer = "hardware"\nmethod = "*/Shootdown"\n'))
    await holds(lambda: serves(pair.socket("mmu")), bool, "the MMU serves")
    channel = connect(pair.socket("mmu"))
    try:
        spaces: Any = mmu_pb2_grpc.SpacesStub(channel)
        handle = await written_space(spaces)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await spaces.UnmapRange(mmu_pb2.UnmapRangeRequest(handle=handle, address=BASE, size_bytes=PAGE))
        error = rpc_error(caught.value)
        assert (error.code, error.reason) == ("UNAVAILABLE", "LAYER_MISSING") and "hardware" in error.message
    finally:
        await channel.close()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[[rule]]\nkind = "explode"\n', "FAULT_PLAN_INVALID"),
        ('[[rule]]\nkind = "drop"\nppm = 1000001\n', "FAULT_PLAN_INVALID"),
        ("[[rule]\n", "CONFIG_MALFORMED"),
    ],
)
def test_a_wrong_plan_is_refused_at_once(pair: Processes, text: str, named: str) -> None:
    """The process ends as misconfigured and says what is wrong."""
    status, said = pair.refused("mmu", *planned(pair, text))
    assert (status, named in said) == (MISCONFIGURED, True), said
