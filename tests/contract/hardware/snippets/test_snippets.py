"""One suite, every core: each snippet shows its fact on every core, and all cores leave the same behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tests.contract.hardware.snippets import assemble, divergences, machine
from tests.contract.hardware.snippets.catalogue import SNIPPETS
from tests.contract.hardware.snippets.cores import (
    CORES,
    KVM,
    KVM_IGNORED,
    REFERENCE,
    Core,
    Machines,
    capabilities,
    emulates,
)
from tests.contract.hardware.snippets.snippet import Snippet

from lamina_kit.bus.run_page import ExitReason

pytestmark = [
    pytest.mark.inside,
    pytest.mark.real_time("real processors have no virtual time; what one instruction does depends on no clock"),
]
_reference: dict[str, dict[str, str]] = {}


def variants() -> list[Any]:
    """Returns each snippet with each core that has what it needs; what is known to differ fails strictly.

    What cores refuse for want of a capability is tested where the capability is.
    """
    found = []
    for snippet in SNIPPETS:
        for core in CORES:
            if all(need in capabilities(core) for need in snippet.needs):
                found.append(pytest.param(snippet, core, marks=marks(snippet, core), id=f"{snippet.name}-{core}"))
    return found


def marks(snippet: Snippet, core: Core) -> list[pytest.MarkDecorator]:
    """Returns what is known of a snippet on a core."""
    if core == KVM:
        if snippet.name in divergences.KVM:
            strict = emulates() and snippet.name not in divergences.VARIES
            return [pytest.mark.xfail(strict=strict, reason=divergences.KVM[snippet.name])]
        return []
    cores, why = divergences.KNOWN.get(snippet.name, ((), ""))
    return [pytest.mark.xfail(strict=True, reason=why)] if str(core) in cores else []


async def observe(bench: Any, snippet: Snippet, core: Core) -> machine.Seen | None:
    """Returns what is seen of a snippet; None when the core refuses its controls, which only KVM may."""
    try:
        seen = await machine.run(bench, snippet, core.budget)
    except grpc.aio.AioRpcError as refused:
        assert (core, refused.code()) == (KVM, grpc.StatusCode.UNIMPLEMENTED), refused
        assert snippet.controls is not None
        return None
    if core == KVM and emulates() and seen.records[-1].reason == ExitReason.ENTRY_FAILED:
        pytest.skip("KVM does not have an instruction of this snippet in its emulator, which runs ring 0 here")
    return seen


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def machines(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Machines]:
    """Returns a machine for each core, for all snippets."""
    found = Machines(tmp_path_factory.mktemp("snippets"))
    yield found
    await found.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("snippet", "core"), variants())
async def test_a_snippet_shows_its_fact_on_every_core(snippet: Snippet, core: Core, machines: Machines) -> None:
    """A snippet leaves what the manual says, and every core leaves what the reference core leaves, bit by bit."""
    core.require()
    seen = await observe(await machines.bench(core), snippet, core)
    if seen is None:
        return
    assert seen.missing() == []
    if core == REFERENCE:
        _reference[snippet.name] = seen.facts
        return
    if snippet.name not in _reference:
        there = await machine.run(await machines.bench(REFERENCE), snippet, REFERENCE.budget)
        _reference[snippet.name] = there.facts
    if str(REFERENCE) in divergences.KNOWN.get(snippet.name, ((), ""))[0]:
        return  # the reference is known to be wrong
    assert machine.differences(_reference[snippet.name], seen.facts, KVM_IGNORED if core == KVM else ()) == []


def test_there_are_enough_and_each_has_a_fact() -> None:
    """There are at least a hundred snippets; each has its own name, a sentence, and something that it asserts."""
    assert len(SNIPPETS) >= 100
    assert [name for name, count in Counter(snippet.name for snippet in SNIPPETS).items() if count > 1] == []
    assert [snippet.name for snippet in SNIPPETS if not snippet.fact.endswith(".")] == []
    assert [snippet.name for snippet in SNIPPETS if not snippet.asserts_something()] == []


def test_the_machine_code_is_that_of_the_sources() -> None:
    """`machine_code.json` was assembled from the sources as they are."""
    written = {name: entry[0] for name, entry in machine.CODE.items()}
    assert written == {name: assemble.digest(source) for name, source, _ in assemble.sources()}
