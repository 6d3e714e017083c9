"""The policies of a replay by name: which compiled one each is, and its sizes.

What each does, and its parameters, are defined in `domain/policies`; the compiled ones choose the same victims, and
`tests/property/mmu/test_replay_policies.py` holds them to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.replay.memory.state import LIMIT_A, LIMIT_B, LIMIT_C, LIMIT_D, LIMIT_E, PolicyState
from lamina_mmu.replay.policies import lfu, passes, ring

OPT = "opt"


COMPILED: dict[str, int] = {
    "fifo": passes.FIFO,
    "lru": passes.LRU,
    "clock": passes.CLOCK,
    "second-chance": passes.CLOCK,
    "lfu": passes.LFU,
    "2q": passes.TWO_Q,
    "arc": passes.ARC,
    "sieve": passes.SIEVE,
    "s3fifo": passes.S3FIFO,
    "mglru": passes.MGLRU,
}
"""The number in `passes` of each policy that knows the past. `opt` is in `opt.py`."""


def defaults(name: str, values: Mapping[str, int]) -> dict[str, int]:
    """Returns all parameters of a policy: those chosen, and the defaults of the others."""
    return {one.name: values.get(one.name, one.default) for one in OWN[name].parameters}


def prepare(state: PolicyState, name: str, frames: int, values: Mapping[str, int]) -> None:
    """Writes a policy's sizes into its state. `values` are chosen parameters; those left out have their defaults."""
    value = defaults(name, values)
    if name in ("clock", "second-chance"):
        state.set(LIMIT_A, (1 << value.get("bits", 1)) - 1)
    elif name == "2q":
        state.set(LIMIT_A, frames * value["kin-percent"] // 100)
        state.set(LIMIT_C, frames * value["kout-percent"] // 100)
    elif name == "s3fifo":
        small = frames * value["small-percent"] // 100
        state.set(LIMIT_A, max(3, value["threshold"]))
        state.set(LIMIT_B, frames - small)
        state.set(LIMIT_C, frames * value["ghost-percent"] // 100)
        state.set(LIMIT_D, small)
        state.set(LIMIT_E, value["threshold"])
    elif name == "mglru":
        state.set(LIMIT_A, value["generations"])


def make_room(state: PolicyState, number: int, nodes: int, frames: int) -> None:
    """Makes room for `nodes` nodes in a state and in the policy's own array."""
    state.grow(nodes)
    if number == passes.LRU:
        ring.make_room(state, nodes, frames)
    elif number == passes.LFU:
        lfu.make_room(state, nodes, frames)
