"""Looking at metrics leaves no mark in the history of a stack in virtual time."""

from __future__ import annotations

from pathlib import Path

from lamina_cli.stack.embedded import Settings, Stack
from lamina_cli.stack.virtual_run import run
from lamina_kit.operations.metrics_text import render
from lamina_kit.telemetry.metrics import merged


def history(folder: Path, *, looked_at: bool) -> tuple[str, list[str]]:
    """Runs an idle stack for some virtual seconds. Returns its events and the pages that were looked at."""
    events: list[str] = []
    pages: list[str] = []

    async def live() -> None:
        stack = Stack(
            Settings(seed=5, clock="virtual", overrides={"LAMINA_HARDWARE_MEMORY_BYTES": str(64 << 20)}),
            folder,
            lambda entry: events.append(entry.json_line()),
        )
        await stack.start()
        clock = next(stack.layers())[2].clock
        for _ in range(20):
            await clock.sleep_ns(10**9)
            if looked_at:
                pages.append(render(merged(((), state.metrics.families()) for _, _, state in stack.layers())))
        await stack.stop()

    run(5, live())
    return "".join(events), pages


def test_the_same_seed_gives_the_same_history_with_and_without_looking(tmp_path: Path) -> None:
    """Events are equal byte for byte, and so are the pages of two runs: durations are of the stack's time."""
    quiet, _ = history(tmp_path / "a", looked_at=False)
    seen, pages = history(tmp_path / "b", looked_at=True)
    again, same = history(tmp_path / "c", looked_at=True)
    assert quiet == seen == again
    assert len(quiet.splitlines()) > 5
    assert pages == same
    assert 'lamina_call_duration_seconds_count{host="h1",layer="hardware"' in pages[-1]
