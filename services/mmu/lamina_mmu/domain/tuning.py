"""How swapping and reclaim are tuned while the host runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tuning:
    """Settings; the meaning of each is that of the contract's `SwapSettings`.

    readahead: pages read around a slot that is needed, a power of 2, 1 to 64. low, high: free frames below which
    reclaim runs ahead of need, and at which it stops; 0: by the size of RAM. zeroed: frames kept zeroed.
    """

    readahead: int = 8
    low: int = 0
    high: int = 0
    zeroed: int = 0
