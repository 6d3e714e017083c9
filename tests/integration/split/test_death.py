"""Any process of a stack may die at any moment: the others go on, it returns, and everything is as it should be.

One stack lives through all of it: each test leaves it as it was, which is what it tests.
"""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from tests.simulation.invariants import Inventory, inventory, no_orphans, pods_and_sandboxes

from lamina_cli.layers import CALLS
from lamina_kit.rng import Rng


def _beside(name: str) -> ModuleType:
    """Loads a module that lies beside this one."""
    spec = importlib.util.spec_from_file_location(f"split_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pytestmark = pytest.mark.asyncio(loop_scope="module")

WORKLOAD, BOOKS = _beside("workload"), _beside("books")
POWER = ("hardware", "mmu")
"""Layers whose death is the host's loss of power."""
WITH_MACHINES = (*POWER, "hypervisor")
"""Layers with which every machine goes."""
OFF = (pb.VirtualMachine.STATE_STOPPED, pb.VirtualMachine.STATE_CRASHED)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("layer", list(CALLS))
async def test_a_killed_layer_returns_and_nothing_leaks(
    split: Any, eventually: Any, holds: Any, layer: str, seed: int
) -> None:
    """Killed at a random moment under load, it comes back; pods are ready again, and at the end nothing is left."""
    print(f"seed {layer}/{seed}")
    rng = Rng(f"{layer}/{seed}")
    work = WORKLOAD.Workload(split.client, rng)
    await work.prepare(f"web-{layer}-{seed}")
    await holds(work.ready_pods, lambda found: found == (1, 1), "the program's text is in the page cache")
    await work.scale(0)
    await holds(work.ready_pods, lambda found: found == (0, 0), "no pod is left")
    before, baseline = await split.left(), await inventory(split.client)
    boots = {name: await boot_of(split, name) for name in CALLS}
    await work.start()
    moment = rng.randint(2, 25)
    await eventually(lambda: work.steps >= moment, f"{moment} steps of work", within=60)
    killed = split.kill(layer)
    await eventually(lambda: split.is_back(layer, killed), f"{layer} serves again", within=60)
    await work.stop()
    assert not work.surprises
    await holds(lambda: work.scale(3), lambda done: True, "the deployment can be scaled")
    await holds(work.ready_pods, lambda found: found == (3, 3), "three pods are ready")
    await check_machine(work, holds, layer)
    await check_boots(split, holds, boots, layer)
    await check_owners(split, holds, baseline)
    await clear(work, holds)
    await holds(split.left, lambda left: left == before, f"nothing is left: {before}")


async def check_machine(work: Any, holds: Any, layer: str) -> None:
    """Checks that the machine is off exactly when its host or its hypervisor died, and can have power."""
    if layer in WITH_MACHINES:
        await holds(work.machine, lambda vm: vm.state in OFF, "the machine is off")
        await holds(work.power_on, lambda done: True, "the machine starts")
    vm = await work.machine()
    assert vm.state == pb.VirtualMachine.STATE_RUNNING, vm


async def check_owners(split: Any, holds: Any, baseline: Inventory) -> None:
    """Checks that whatever a layer holds has one owner: frames, and what pods and machines have below them."""
    look = partial(BOOKS.faults, split.client, split.stack.bus)
    await holds(look, lambda wrong: not wrong, "every frame has one owner")
    await holds(partial(orphans, split.client, baseline), lambda told: not told, "nothing is without an owner")


async def orphans(client: Any, baseline: Inventory) -> str:
    """Returns what is left without an owner, or lacks what it should have; empty when all is well."""
    try:
        await no_orphans(client, baseline)
        await pods_and_sandboxes([client])
    except AssertionError as found:
        return str(found)
    return ""


async def check_boots(split: Any, holds: Any, boots: dict[str, str], layer: str) -> None:
    """Checks that the host's boot changed with its power and with nothing else."""
    for name in ("mmu", "hypervisor", "container-runtime"):
        changed = await boot_of(split, name) != boots[name]
        assert changed == (layer in POWER), f"{name}: {boots[name]}"
    lost = layer == "hardware"  # the switch needs nobody who needs it, and may be the last to find out
    await holds(
        lambda: boot_of(split, "vswitch"), lambda boot: (boot != boots["vswitch"]) == lost, "the switch is of its boot"
    )


async def boot_of(split: Any, layer: str) -> str:
    """Returns the boot id that a layer tells."""
    from lamina.common.v1 import layer_pb2, layer_pb2_grpc

    request = layer_pb2.HandshakeRequest(caller="test", revision="1.0")
    answer = await split.client.stub(layer, layer_pb2_grpc.LayerStub).Handshake(request)
    return str(answer.boot_id)


async def clear(work: Any, holds: Any) -> None:
    """Removes the pods, and takes the machine's power away."""
    await work.scale(0)
    await holds(work.ready_pods, lambda found: found == (0, 0), "no pod is left")
    await work.power_off()
