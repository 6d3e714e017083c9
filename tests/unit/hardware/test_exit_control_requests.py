"""Which exit controls may be set: what is within the bounds is taken, a step beyond is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import exit_controls_pb2, registers_pb2
from tests.unit.hardware.requests import wrong

from lamina_hardware.convert.exit_controls import exit_controls, exit_controls_message

PAGE = 4096
CONTROLS = exit_controls_pb2.ExitControls


def _port(first: int, count: int) -> Any:
    return exit_controls_pb2.PortRange(first=first, count=count)


def _msr(first: int, count: int) -> Any:
    return exit_controls_pb2.MsrRange(first=first, count=count)


def _ports(*ranges: Any, all: bool = False) -> Any:
    return {"ports": exit_controls_pb2.PortControls(ranges=ranges, all=all)}


def _msrs(**fields: Any) -> Any:
    return {"msrs": exit_controls_pb2.MsrControls(**fields)}


def _shadow(number: int) -> Any:
    return registers_pb2.Msr(number=number, value=1)


def _device(gpa: int, size: int = PAGE) -> Any:
    return exit_controls_pb2.DeviceRange(gpa=gpa, size_bytes=size)


def _posted(**fields: Any) -> Any:
    return exit_controls_pb2.PostedWrite(**fields)


MSRS, GPA_END, HOUR, SECOND = 1 << 32, 1 << 48, 3_600_000_000_000, 1_000_000_000
CONTROLS_GOOD: list[dict[str, Any]] = [
    {}, {"exceptions": (1 << 32) - 1}, {"instructions": [2, 1]},
    _ports(all=True), _ports(_port(0, 1 << 16)), _ports(_port(0xFFFF, 1), _port(0, 0xFFFF)),
    _ports(*(_port(2 * n, 2) for n in range(256))),
    _msrs(all=True), _msrs(reads=[_msr(MSRS - 1, 1)], writes=[_msr(0, 65536)], shadows=[_shadow(MSRS - 1)]),
    _msrs(reads=[_msr(8, 8), _msr(0, 8)]), _msrs(shadows=[_shadow(n) for n in range(64)]),
    {"preemption_timer_ns": 1000}, {"preemption_timer_ns": HOUR}, {"pause_gap_ns": SECOND, "pause_window_ns": SECOND},
    {"control_registers": exit_controls_pb2.ControlRegisterControls(cr3_targets=[1, 2, 3, 4])},
    {"device_ranges": [_device(GPA_END - PAGE), _device(0, 1 << 40)]},
    {"device_ranges": [_device(n * PAGE) for n in range(64)]},
    {"device_ranges": [_device(PAGE)], "posted_writes": [_posted(gpa=2 * PAGE - 1, slot=15, size_bytes=8)]},
    {"posted_writes": [_posted(port=0xFFFF, slot=n) for n in range(16)]},
]  # fmt: skip
CONTROLS_BAD: list[tuple[str, dict[str, Any]]] = [
    ("instructions", {"instructions": [99]}), ("instructions", {"instructions": [1, 1]}),
    ("ports.ranges", _ports(_port(0, 1), all=True)), ("ports.ranges", _ports(_port(0, 2), _port(1, 1))),
    ("ports.ranges", _ports(*(_port(2 * n, 1) for n in range(257)))),
    ("ports.ranges.first", _ports(_port(-1, 1))), ("ports.ranges.count", _ports(_port(0, 0))),
    ("ports.ranges.count", _ports(_port(1, 1 << 16))),
    ("msrs", _msrs(all=True, reads=[_msr(0, 1)])), ("msrs", _msrs(all=True, writes=[_msr(0, 1)])),
    ("msrs", _msrs(all=True, shadows=[_shadow(1)])), ("msrs.reads", _msrs(reads=[_msr(0, 2), _msr(1, 1)])),
    ("msrs.writes", _msrs(writes=[_msr(n, 1) for n in range(257)])),
    ("msrs.reads.count", _msrs(reads=[_msr(0, 0)])), ("msrs.reads.count", _msrs(reads=[_msr(0, 65537)])),
    ("msrs.writes.count", _msrs(writes=[_msr(MSRS - 1, 2)])),
    ("msrs.shadows", _msrs(shadows=[_shadow(1)] * 2)), ("msrs.shadows", _msrs(shadows=[_shadow(n) for n in range(65)])),
    ("preemption_timer_ns", {"preemption_timer_ns": 999}), ("preemption_timer_ns", {"preemption_timer_ns": HOUR + 1}),
    ("pause_gap_ns", {"pause_gap_ns": SECOND + 1}), ("pause_window_ns", {"pause_window_ns": SECOND + 1}),
    ("control_registers.cr3_targets",
     {"control_registers": exit_controls_pb2.ControlRegisterControls(cr3_targets=range(5))}),
    ("device_ranges", {"device_ranges": [_device(n * PAGE) for n in range(65)]}),
    ("device_ranges", {"device_ranges": [_device(0, 2 * PAGE), _device(PAGE)]}),
    ("device_ranges.gpa", {"device_ranges": [_device(8)]}),
    ("device_ranges.gpa", {"device_ranges": [_device(GPA_END)]}),
    ("device_ranges.size_bytes", {"device_ranges": [_device(0, PAGE + 8)]}),
    ("device_ranges.size_bytes", {"device_ranges": [_device(0, 0)]}),
    ("device_ranges.size_bytes", {"device_ranges": [_device(0, (1 << 40) + PAGE)]}),
    ("posted_writes", {"posted_writes": [_posted(port=1, slot=n % 16) for n in range(17)]}),
    ("posted_writes.slot", {"posted_writes": [_posted(port=1, slot=3), _posted(port=2, slot=3)]}),
    ("posted_writes.slot", {"posted_writes": [_posted(port=1, slot=16)]}),
    ("posted_writes.size_bytes", {"posted_writes": [_posted(port=1, size_bytes=3)]}),
    ("posted_writes.place", {"posted_writes": [_posted(slot=1)]}),
    ("posted_writes.port", {"posted_writes": [_posted(port=1 << 16)]}),
    ("posted_writes.gpa", {"device_ranges": [_device(PAGE)], "posted_writes": [_posted(gpa=2 * PAGE)]}),
    ("posted_writes.gpa", {"device_ranges": [_device(PAGE)], "posted_writes": [_posted(gpa=PAGE - 1)]}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CONTROLS_GOOD)))
def test_exit_controls_are_told_as_they_were_set(number: int) -> None:
    """What is within the bounds is taken, and the message made of it says the same, its lists in their order."""
    taken = exit_controls(CONTROLS(**CONTROLS_GOOD[number]))
    assert exit_controls(exit_controls_message(taken)) == taken
    assert (exit_controls_message(taken) != CONTROLS()) == bool(CONTROLS_GOOD[number])


def test_exit_controls_that_are_refused() -> None:
    """Every step beyond a bound is refused by the field's name."""
    for field, fields in CONTROLS_BAD:
        refused = wrong(lambda fields=fields: exit_controls(CONTROLS(**fields)))  # type: ignore[misc]
        assert f"controls.{field}" in refused, fields
        assert all(name.startswith(f"controls.{field.split('.')[0]}") for name in refused), fields
