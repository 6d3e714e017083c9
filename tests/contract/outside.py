"""Running contract suites against services that somebody else started: in containers, or as processes.

    export LAMINA_TEST_TARGETS="hardware=127.0.0.1:50051 mmu=127.0.0.1:50052" LAMINA_TEST_BUS=/dev/shm/h1.ram
    pytest tests/contract/mmu

The suites are the same. Left out are the tests that look inside the process or count on a service that nobody used
before (marked `inside`), that move its clock, or that start it with a configuration of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina_kit.rpc.channel import Channel, connect

INSIDE = ("manual_clock", "power")
"""Fixtures that only a service in the test's own process can have."""


def targets() -> dict[str, str]:
    """Returns the address of each service that was started outside, by layer; none when the suites start their own."""
    return dict(entry.split("=", 1) for entry in os.environ.get("LAMINA_TEST_TARGETS", "").split())


def bus_path() -> Path:
    """Returns the memory bus of the services outside."""
    return Path(os.environ["LAMINA_TEST_BUS"])


def channels() -> dict[str, Channel]:
    """Returns new channels to the services outside."""
    return {layer: connect(address) for layer, address in targets().items()}


def is_reachable(item: pytest.Item) -> bool:
    """Says whether a test can be run against a service outside."""
    fixtures = getattr(item, "fixturenames", ())
    if item.get_closest_marker("inside") or any(name in INSIDE for name in fixtures):
        return False
    name = item.name.partition("[")[2]
    return "portable" not in name and "linux" not in name and "kvm" not in name
