"""What a layer counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina_net.packets.refusal import Refusal


@dataclass(slots=True)
class Counters:
    """What happened since the start. `refused`: segments that could not be parsed, by reason."""

    received: int = 0
    sent: int = 0
    resets_for_nobody: int = 0
    syns_dropped: int = 0
    """A backlog, or the layer, was full."""
    cookies_sent: int = 0
    """SYNs that were answered by a cookie, as a backlog was full."""
    cookies_taken: int = 0
    """Connections that began with a cookie that came back."""
    refused: dict[Refusal, int] = field(default_factory=dict)


@dataclass(slots=True)
class Repairs:
    """What a layer's senders did about loss, or did not have to. Counts since the start."""

    timeouts: int = 0
    spurious: int = 0
    """Timeouts that were undone, as nothing had been lost."""
    tail_probes: int = 0
    tail_losses: int = 0
    """Losses that a tail probe repaired by itself."""
    overtaken: int = 0
    """Recoveries that began as something sent later had arrived, a quarter of a round trip ago."""
    marks: int = 0
    """Segments that came with a mark of congestion."""
    slowed: int = 0
    """Times that a peer's echo of marks made us slow down."""
