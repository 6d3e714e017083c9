"""Single layers in containers of their own, and their contract suites from outside."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from tests.e2e.layers import Layers, run_suite

Grpcurl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.timeout(400)
def test_the_hardware_alone_passes_its_suite(layers: Layers) -> None:
    """A machine of two cores in a container passes the contract suite that the engine passes in process."""
    layers.start(
        "hardware",
        LAMINA_HARDWARE_CORES="2",
        LAMINA_HARDWARE_MEMORY_BYTES=str(64 << 20),
        LAMINA_HARDWARE_RUN_PAGES="64",
    )
    assert run_suite(layers.addresses, layers.bus, "tests/contract/hardware") > 90


@pytest.mark.timeout(400)
def test_an_mmu_over_hardware_passes_its_suite(layers: Layers) -> None:
    """The MMU in a container, over hardware in another, passes its contract suite."""
    layers.start("hardware", LAMINA_HARDWARE_MEMORY_BYTES=str(16 << 20))
    layers.start("mmu", "hardware", LAMINA_MMU_SWAP_BYTES=str(4 << 20))
    assert run_suite(layers.addresses, layers.bus, "tests/contract/mmu") > 50


def test_a_layer_without_the_one_below_says_so(layers: Layers, grpcurl: Grpcurl) -> None:
    """An MMU whose hardware is not there answers UNAVAILABLE and names it, and serves once it has come."""
    layers.start("mmu", "hardware", healthy=False)
    refused = grpcurl(layers.addresses["mmu"], "lamina.mmu.v1.Frames/GetMemory")
    assert refused.returncode != 0
    assert "Unavailable" in refused.stderr and "hardware" in refused.stderr
    layers.start("hardware")
    layers.wait_until_healthy("mmu")
    assert grpcurl(layers.addresses["mmu"], "lamina.mmu.v1.Frames/GetMemory").returncode == 0


def test_a_switch_needs_a_host_and_no_more(layers: Layers, grpcurl: Grpcurl) -> None:
    """A vswitch is of use without the layers above: switches are made and listed over gRPC."""
    layers.start("hardware")
    layers.start("vswitch", "hardware")
    address = layers.addresses["vswitch"]
    made = grpcurl("-d", '{"switch_id": "lan"}', address, "lamina.vswitch.v1.Switches/CreateSwitch")
    assert made.returncode == 0, made.stderr
    assert "hosts/h1/switches/lan" in grpcurl(address, "lamina.vswitch.v1.Switches/ListSwitches").stdout
