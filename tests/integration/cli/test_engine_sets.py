"""Stacks of the engine sets: which layers start, and what they run on."""

from __future__ import annotations

import pytest
from lamina.hypervisor.v1 import hypervisor_pb2 as pb
from lamina.hypervisor.v1 import hypervisor_pb2_grpc as services

from lamina_cli.layers import CALLS, layers_of
from lamina_cli.stack.embedded import Settings, private_stack
from lamina_kit.engines import SETS, engines_of


def test_layers_start_that_have_an_engine_and_all_they_call() -> None:
    """The set for VMs has no runtime of containers, so there is nothing that an orchestrator could call either."""
    assert layers_of(SETS["model"]) == tuple(CALLS)
    assert layers_of(SETS["kvm"]) == ("hardware", "mmu", "vswitch", "hypervisor")
    assert "container-runtime" in layers_of(SETS["linux"]) and "hypervisor" not in layers_of(SETS["linux"])


@pytest.mark.parametrize("engines", ["kvm"])
async def test_a_stack_of_that_set_serves_vms(engines: str) -> None:
    """Its layers answer, and each tells its engine."""
    if reasons := engines_of("hardware")[engines].missing():
        pytest.skip("; ".join(reasons))
    async with private_stack(Settings(engines=SETS[engines])) as stack:
        assert {name: state.engine for name, _, state in stack.layers()} == {
            layer: SETS[engines][layer] for layer in layers_of(SETS[engines])
        }
        assert set(stack.servers()) == set(layers_of(SETS[engines]))
        vms = stack.client().stub("hypervisor", services.VirtualMachinesStub)
        assert not (await vms.ListVirtualMachines(pb.ListVirtualMachinesRequest())).virtual_machines
