"""A layer lives as long as its host has power; when power comes back, it is built anew."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import pytest
from lamina.common.v1 import layer_pb2, layer_pb2_grpc
from lamina.hardware.v1 import hardware_pb2 as pb
from tests.virtual_time import clock_of_loop

from lamina_kit.errors import FailedPrecondition, Unavailable
from lamina_kit.faults.kinds import FaultKind
from lamina_kit.faults.table import Wish
from lamina_kit.layer.owner_session import OwnerSession
from lamina_kit.names import Pattern
from lamina_kit.process.upstreams import extend_boot, one_boot
from lamina_kit.rpc.status import rpc_error


def _world() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lifecycle_world", Path(__file__).with_name("lifecycle_world.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORLD = _world()


class Stack:
    """A ground, and an upper layer that needs it."""

    def __init__(self, folder: Path) -> None:
        self.world = SimpleNamespace(log=[], boots={}, failures={}, stop_fails=False)
        self.folder = folder
        self.clock = clock_of_loop()
        self.ground = self.layer("ground", {})
        self.upper = self.layer("upper", {"ground": self.ground.channel})

    def layer(self, name: str, below: dict[str, Any]) -> Any:
        """Starts a layer."""
        return WORLD.Layer(self.world, name, self.clock, self.folder, below)

    def reboot_ground(self) -> None:
        """Has the ground lose its power and get it back."""
        self.ground.lifecycle.reboot()


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    """Two layers that live until the test ends."""
    made = Stack(tmp_path)
    yield made
    for layer in (made.upper, made.ground):
        if not layer.task.done():
            await layer.end()


async def boot_of(layer: Any) -> str:
    """Returns the boot id that a layer's service answers with."""
    return str((await layer.hosts.GetHost(pb.GetHostRequest())).boot_id)


def serves(layer: Any) -> Any:
    """Returns a condition: calls reach the layer."""
    return lambda: layer.lifecycle.board.is_open


async def refusal(call: Any) -> Any:
    """Returns the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc_error(caught.value)


async def test_a_layer_starts_when_those_below_are_there(stack: Stack, eventually: Any) -> None:
    """Calls reach it only then; before, they are told who is missing and what to do."""
    before = await refusal(stack.upper.hosts.GetHost(pb.GetHostRequest()))
    assert (before.code, before.reason, before.metadata["missing"]) == ("UNAVAILABLE", "LAYER_STARTING", "ground")
    assert "ground" in before.message and before.next_step
    await eventually(serves(stack.upper), "the upper layer serves")
    assert await boot_of(stack.upper)
    assert stack.world.log == ["ground starts", "upper starts"]


async def test_another_boot_below_builds_the_layer_anew(stack: Stack, eventually: Any) -> None:
    """The service is stopped and started again, its session stream breaks, its boot is another one."""
    await eventually(serves(stack.upper), "the upper layer serves")
    first = await boot_of(stack.upper)
    session = await OwnerSession.open(stack.upper.channel, "h1/above", 1, stack.clock)
    lost: list[str] = []
    session.on_lost(lambda: lost.append("lost"))
    session.on_reopened(lambda: lost.append(session.handshake.boot_id))
    waiting = asyncio.ensure_future(refusal(stack.upper.hosts.GetHost(pb.GetHostRequest(name="wait"))))
    await asyncio.sleep(0)
    stack.reboot_ground()
    ended = await waiting
    assert (ended.code, ended.reason) == ("UNAVAILABLE", "HOST_REBOOTED")
    await eventually(lambda: len(lost) == 2, "the session above is open again")
    second = await boot_of(stack.upper)
    assert second != first and lost == ["lost", second]
    assert stack.world.log.count("upper starts") == 2 and stack.world.log.count("upper stops") == 1
    events = [entry.event for entry in stack.upper.lifecycle.state.events.list("hosts/h1")]
    assert events == ["host.rebooted"]
    await session.close()


async def test_faults_end_with_the_life_that_they_broke(stack: Stack, eventually: Any) -> None:
    """Power that comes back mends: a fault's end comes no more, and the next fault has a name of its own."""
    ended: list[str] = []
    kind = FaultKind("dim", Pattern("hosts/{host}"), "Dim.", lambda broken: {}, lambda broken: ended.append("mended"))
    await eventually(serves(stack.upper), "the upper layer serves")
    names = []
    for boots in (1, 2):
        state = stack.upper.lifecycle.state
        state.faults.register(kind)
        names.append((await state.faults.inject(Wish("dim", "hosts/h1", duration_ns=10**9))).name)
        stack.reboot_ground()
        await eventually(lambda boots=boots: stack.world.log.count("upper starts") == boots + 1, "it starts anew")
        await eventually(serves(stack.upper), "the upper layer serves again")
    await stack.clock.sleep_ns(2 * 10**9)
    assert ended == [] and len(set(names)) == 2


async def test_a_short_absence_below_costs_nothing(stack: Stack, eventually: Any) -> None:
    """The same boot that comes back is no loss of power: the layer goes on and says meanwhile who is missing."""
    await eventually(serves(stack.upper), "the upper layer serves")
    boot = await boot_of(stack.upper)
    await stack.ground.server.stop(0)
    await eventually(lambda: stack.upper.lifecycle.upstreams.missing() == ["ground"], "the absence is noticed")
    assert await boot_of(stack.upper) == boot
    told = await refusal(stack.upper.hosts.GetHost(pb.GetHostRequest(name="transport")))
    assert (told.reason, told.metadata["layer"]) == ("LAYER_MISSING", "ground")
    assert "ground" in told.message and "lamina status" in told.next_step
    await stack.ground.server.start()
    await eventually(lambda: not stack.upper.lifecycle.upstreams.missing(), "the layer below is there again")
    assert await boot_of(stack.upper) == boot
    assert stack.world.log.count("upper starts") == 1


async def test_a_layer_below_that_leaves_in_the_middle_of_a_start(stack: Stack, eventually: Any) -> None:
    """The start is tried again, with a service that is built anew."""
    stack.world.failures["upper"] = [Unavailable("gone", reason="RPC_UNAVAILABLE")]
    await eventually(serves(stack.upper), "the upper layer serves")
    assert stack.world.log == ["ground starts", "upper starts", "upper stops", "upper starts"]


async def test_what_no_waiting_mends_ends_the_layer(stack: Stack, eventually: Any) -> None:
    """An error of the service's own start is its owner's to see."""
    stack.world.failures["upper"] = [FailedPrecondition("broken", reason="STORE_CORRUPT")]
    await eventually(stack.upper.task.done, "the layer has ended")
    with pytest.raises(FailedPrecondition, match="broken"):
        stack.upper.task.result()


async def test_a_service_that_fails_to_stop_is_left_behind(stack: Stack, eventually: Any) -> None:
    """The next one starts all the same."""
    await eventually(serves(stack.upper), "the upper layer serves")
    first = await boot_of(stack.upper)
    stack.world.stop_fails = True
    stack.reboot_ground()
    await eventually(lambda: stack.world.log.count("upper starts") == 2, "the upper layer starts again")
    await eventually(serves(stack.upper), "the upper layer serves again")
    assert await boot_of(stack.upper) != first


async def test_a_wrong_layer_below_is_fatal(stack: Stack, eventually: Any) -> None:
    """Who answers under an address must be who is looked for there."""
    mixed = stack.layer("mixed", {"mmu": stack.ground.channel})
    await eventually(mixed.task.done, "the layer has ended")
    with pytest.raises(FailedPrecondition) as caught:
        mixed.task.result()
    assert caught.value.reason == "UPSTREAM_WRONG" and "ground" in caught.value.message


async def test_the_handshake_belongs_to_the_present_start(stack: Stack, eventually: Any) -> None:
    """After a reboot the layer introduces itself with its new boot, and is silent in between."""
    await eventually(serves(stack.upper), "the upper layer serves")
    stub: Any = layer_pb2_grpc.LayerStub(stack.upper.channel)
    request = layer_pb2.HandshakeRequest(caller="test", revision="1.0")
    first = (await stub.Handshake(request)).boot_id
    stack.reboot_ground()
    await eventually(lambda: stack.world.log.count("upper starts") == 2, "the upper layer starts again")
    await eventually(serves(stack.upper), "the upper layer serves again")
    assert (await stub.Handshake(request)).boot_id not in ("", first)


def test_boots_that_extend_each_other_are_one_boot() -> None:
    """The boot of a layer above begins with that of the layer below; anything else is another boot."""
    low = "boot-a"
    high = extend_boot(low, "mmu-b")
    assert one_boot([low, high, low]) and one_boot([high, ""]) and one_boot([])
    assert not one_boot([low, extend_boot("boot-c", "mmu-b")])
    assert not one_boot(["boot-a", "boot-ab.mmu"])
    assert not one_boot([high, extend_boot(low, "mmu-c")])
