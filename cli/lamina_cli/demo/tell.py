"""Tells the whole story against a stack, chapter after chapter."""

from __future__ import annotations

from contextlib import AbstractContextManager

from lamina_cli.client import span_tree
from lamina_cli.client.client import Client, recorder
from lamina_cli.demo import frames, guest, host, images, pods, swapping
from lamina_cli.demo.story import Story
from lamina_kit.telemetry import trace

TOUCHED = ("orchestrator", "container-runtime", "mmu", "hardware")
"""The layers that starting a pod goes through."""


async def tell(client: Client, manifest: str) -> int:
    """Tells the story. Returns the exit status: 0 only if every check held."""
    story = Story()
    with chapter(client, "stack"):
        await host.stack(story, client)
    with chapter(client, "images"):
        built = await images.images(story, client)
    with chapter(client, "deployment"):
        trace_id = await pods.deploy(story, client, built["hello"], manifest)
    with chapter(client, "isolation"):
        await pods.isolation(story, client)
    with chapter(client, "healing"):
        await pods.healing(story, client)
    with chapter(client, "guest"):
        await guest.machine(story, client)
    with chapter(client, "frames"):
        await frames.exchange(story, client)
    with chapter(client, "swap"):
        await swapping.swap(story, client)
    with chapter(client, "trace"):
        await one_trace(story, client, trace_id)
    return story.end()


def chapter(client: Client, name: str) -> AbstractContextManager[trace.TraceContext]:
    """Begins a trace of a chapter's calls, unsampled: it is the cause of what they lead to."""
    return trace.begin(f"demo {name}", client.recorder or recorder(), sampled=False)


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
