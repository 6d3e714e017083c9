"""Contract ↔ domain for what happens to the machine."""

from __future__ import annotations

from lamina.hardware.v1 import topology_pb2 as pb

from lamina_hardware.domain.machine_events import CoreChange, MachineEvent, MemoryFailure
from lamina_hardware.names import Names


def event(found: MachineEvent, names: Names) -> pb.MachineEvent:
    """Returns an event as a message."""
    message = pb.MachineEvent(sequence=found.sequence, time_ns=found.time_ns)
    news = found.news
    if isinstance(news, CoreChange):
        message.core.CopyFrom(pb.CoreChange(core=news.core, lost=news.lost))
    elif isinstance(news, MemoryFailure):
        message.memory.CopyFrom(
            pb.MemoryError(address=news.address, size_bytes=news.size, corrected=news.corrected, count=news.count)
        )
    else:
        change = pb.DeviceChange.Change.ValueType(news.change)
        message.device.CopyFrom(pb.DeviceChange(device=names.format_device(news.device), change=change))
    return message


def current(sequence: int, now_ns: int) -> pb.MachineEvent:
    """Returns the message that says that the present state was told; `sequence` is the last number so far."""
    return pb.MachineEvent(sequence=sequence, time_ns=now_ns, current=pb.MachineEvent.Current())
