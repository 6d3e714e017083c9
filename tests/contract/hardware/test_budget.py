"""Instructions are time: budgets are exact, the same program costs the same however it is cut."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.bus.run_page import ExitReason

TEXT = 0x400000


async def total(process: Any, budget: int) -> tuple[int, int, int]:
    """Runs to the end in slices; returns instructions, slices, and the last reason."""
    instructions = slices = 0
    while True:
        record = await process.run(budget)
        instructions += record.instructions_retired
        slices += 1
        if record.reason != ExitReason.BUDGET:
            return instructions, slices, record.reason
        assert record.instructions_retired > 0


@pytest.mark.parametrize("program", ["count", "mixed_loop", "patch_loop"])
async def test_slicing_costs_nothing(bench: Any, program: str) -> None:
    """A program retires the same instructions and ends the same, whole or in slices of any size."""
    sums = []
    for budget in (0, 1, 2, 3, 7, 50, 1000):
        process = await bench.process()
        process.tables.map(0x600000, process.data, 7)
        process.load(program)
        instructions, _, reason = await total(process, budget)
        sums.append((instructions, reason, process.page.rax, process.page.rbx, process.page.rdx))
    assert len(set(sums)) == 1


async def test_a_budget_is_not_passed(bench: Any) -> None:
    """A run stops before the block that does not fit; only a first block may be larger than the budget."""
    process = await bench.process("spin")
    assert (await process.run(12)).instructions_retired == 10
    assert (await process.run(5)).instructions_retired == 5
    assert (await process.run(3)).instructions_retired == 5
    process.load("long_block")
    assert (await process.run(10)).instructions_retired == 61
    assert process.page.rip == TEXT


async def test_a_refused_block_is_not_charged(bench: Any) -> None:
    """The block at which a run stopped runs whole in the next, and is charged there."""
    process = await bench.process("long_block")
    counts = [(await process.run(100)).instructions_retired for _ in range(5)]
    assert counts == [61] * 5
    process.page.rax = 0
    assert (await process.run(130)).instructions_retired == 122


async def test_long_budgets_are_exact_over_many_grants(bench: Any) -> None:
    """A budget that takes several slices on a core's thread is kept to the instruction."""
    process = await bench.process("spin")
    record = await process.run(20_000_000)
    assert (record.reason, record.instructions_retired) == (ExitReason.BUDGET, 20_000_000)


async def test_pages_and_other_contexts_change_no_counts(bench: Any) -> None:
    """A program interrupted by others on its core, and by faults, retires what it retires alone."""
    alone = await bench.process("mixed_loop")
    expected, _, _ = await total(alone, 0)
    process = await bench.process("mixed_loop")
    others = [await bench.process("spin") for _ in range(3)]
    bench.bus.store64(process.tables.entry(0x601000), 0)
    instructions = 0
    while True:
        record = await process.run(101)
        instructions += record.instructions_retired
        for other in others:
            await other.run(50)
        if record.reason == ExitReason.PAGE_FAULT:
            process.tables.map(record.address & ~4095, bench.frames())
        elif record.reason != ExitReason.BUDGET:
            break
    assert (record.reason, instructions) == (ExitReason.SYSCALL, expected)
