"""`lamina demo`: tells the whole story in one private stack, each line a check that can fail."""

from __future__ import annotations

import argparse
import asyncio

from lamina_cli import parse
from lamina_cli.assets import asset
from lamina_cli.client import attempt, guarded


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--seed", type=parse.INT64, help="seed of ids and choices (default: random)")
    parser.set_defaults(run=lambda args: guarded(lambda: asyncio.run(demo(args))))


async def demo(args: argparse.Namespace) -> int:
    """Starts a private stack and tells the story on it. Returns 0 only if every check holds."""
    from lamina_cli.demo.tell import tell
    from lamina_cli.progress import Line
    from lamina_cli.stack import Settings, private_stack

    line = Line("starting a private stack")
    async with private_stack(Settings(seed=args.seed), line.step) as stack:
        line.done()
        return await attempt(tell(stack.client(), asset("examples/hello.yaml").read_text()))
