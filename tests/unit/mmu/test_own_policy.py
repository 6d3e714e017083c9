"""A policy that a user wrote: by import path, by entry point, and what is refused."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from tests.contract.mmu.stack import PAGE, READ, Stack
from tests.property.mmu.test_policies import replay

from lamina_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from lamina_mmu.config import MmuConfig
from lamina_mmu.domain.policies.lru import Lru
from lamina_mmu.domain.policy import Policy
from lamina_mmu.io import policies

EXAMPLES = Path(__file__).parents[3] / "examples" / "policies"
BASE = 0x40_0000


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> type[Policy]:
    """Returns the example's class, importable as `mru:Mru`."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    name, found = policies.installed("mru:Mru")
    return found[name]


def test_the_example_beats_lru_in_a_loop(example: type[Policy]) -> None:
    """A loop over one page more than fits misses every time under LRU, and once in a while under MRU."""
    trace = [1, 2, 3, 4, 5] * 20
    missed = {policy: sum(missed for missed, _ in replay(policy(4), trace)) for policy in (Lru, example)}
    assert missed[Lru] == 100 and missed[example] < 35


async def test_the_example_serves_faults(tmp_path: Path, example: type[Policy]) -> None:
    """LAMINA_MMU_POLICY=mru:Mru: with four frames full, the page that came last goes, and the log says whose rule."""
    async with Stack(tmp_path, config=MmuConfig(swap_bytes=64 * PAGE, policy="mru:Mru")) as stack:
        space = await stack.space(await stack.group("example", pages=8))
        await stack.map(space, BASE, 5)
        for page in range(5):
            await stack.read(space, BASE + page * PAGE, 1)
        assert (await stack.translate(space, BASE + 3 * PAGE)).residency == 3
        assert (await stack.fault(space, BASE, READ)).outcome == 5
        rules = [entry.rule for entry in stack.layer.events.list(limit=1000) if entry.event == "page.evicted"]
        assert rules and all(rule.startswith("mru: the first in its order of 4 pages") for rule in rules)


def test_an_entry_point_installs_a_policy(monkeypatch: pytest.MonkeyPatch, example: type[Policy]) -> None:
    """Policies of the group `lamina.policies` can be chosen by name."""
    points = [metadata.EntryPoint("anything", "mru:Mru", policies.GROUP)]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    assert policies.installed("lru") == ("lru", {"mru": example})


@pytest.mark.parametrize("path", ["no.such:Policy", "mru:Nothing", "pathlib:Path", "lamina_mmu.domain.policy:Policy"])
def test_what_is_no_policy_is_refused(path: str, example: type[Policy]) -> None:
    """A path that does not lead to a policy with a name of its own is named."""
    with pytest.raises(FailedPrecondition, match=path) as refused:
        policies.installed(path)
    assert refused.value.reason == "POLICY_NOT_LOADABLE"


async def test_a_stack_does_not_start_with_a_policy_that_cannot_serve(tmp_path: Path) -> None:
    """Neither with one that does not exist, nor with one that needs the future."""
    for name, error, reason in (("ideal", NotFound, "POLICY_UNKNOWN"), ("opt", InvalidArgument, "POLICY_OFFLINE")):
        (tmp_path / name).mkdir()
        stack = Stack(tmp_path / name, config=MmuConfig(swap_bytes=0, policy=name))
        with pytest.raises(error) as refused:
            await stack.service.start()
        assert refused.value.reason == reason
        await stack.service.stop()
        stack.bus.close()
