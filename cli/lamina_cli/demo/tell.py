"""Tells the whole story against a stack, chapter after chapter."""

from __future__ import annotations

from lamina_cli import span_tree
from lamina_cli.client import Client
from lamina_cli.demo import frames, guest, host, images, pods, swapping
from lamina_cli.demo.story import Story

TOUCHED = ("orchestrator", "container-runtime", "mmu", "hardware")
"""The layers that starting a pod goes through."""


async def tell(client: Client, manifest: str) -> int:
    """Tells the story. Returns the exit status: 0 only if every check held."""
    story = Story()
    await host.stack(story, client)
    built = await images.images(story, client)
    trace_id = await pods.deploy(story, client, built["hello"], manifest)
    await pods.isolation(story, client)
    await pods.healing(story, client)
    await guest.machine(story, client)
    await frames.exchange(story, client)
    await swapping.swap(story, client)
    await one_trace(story, client, trace_id)
    return story.end()


async def one_trace(story: Story, client: Client, trace_id: str) -> None:
    """Prints the trace of the deployment."""
    story.chapter(f"Trace {trace_id} of chapter 3, across the layers")
    spans = await span_tree.collect(client, trace_id)
    lines = span_tree.draw(spans)
    story.show("\n".join(lines))
    layers = span_tree.layers_of(spans)
    story.check(
        f"{len(spans)} spans, from the manifest down to page frames: {', '.join(layers)}",
        set(TOUCHED) <= set(layers),
        ", ".join(layers),
    )
