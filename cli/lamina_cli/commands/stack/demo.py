"""`lamina demo`: tells the whole story in one private stack, each line a check that can fail."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from lamina_cli.client.client import attempt, guarded
from lamina_cli.guests.assets import asset
from lamina_cli.input import parse
from lamina_cli.stack import fault_plans
from lamina_kit.errors import InvalidArgument

CLOCKS = ("real", "virtual")
TARGET_HELP = "embedded or split: a private stack; compose: what docker compose publishes; or a stack's name"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--seed", type=parse.INT64, help="seed of ids and choices (default: random)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="real",
        help="virtual: time passes as the work allows, and a seed repeats its history (default: real)",
    )
    parser.add_argument("--hosts", type=parse.INT32, default=1, metavar="N", help="number of hosts (default 1)")
    parser.add_argument(
        "--event-log", type=Path, metavar="FILE", help="write the events of all layers, a JSON line each"
    )
    parser.add_argument("--target", default="embedded", metavar="TARGET", help=TARGET_HELP)
    fault_plans.add_option(parser)
    parser.set_defaults(run=lambda args: guarded(lambda: run(args)))


def run(args: argparse.Namespace) -> int:
    """Tells the story in the time that was chosen.

    Raises:
        InvalidArgument: `TOPOLOGY_UNSUPPORTED`, virtual time or several hosts on a target that is not embedded.
    """
    if args.target != "embedded" and (args.clock != "real" or args.hosts != 1):
        raise InvalidArgument(
            f"The target {args.target} has its own clock and hosts.",
            reason="TOPOLOGY_UNSUPPORTED",
            next_step="Leave --target away for virtual time and for several hosts.",
        )
    if args.clock == "real":
        return asyncio.run(demo(args))
    from lamina_cli.stack import virtual_run

    virtual_run.with_fixed_hashes()
    seed = args.seed if args.seed is not None else virtual_run.random_seed()
    args.seed = seed
    return virtual_run.run(seed, demo(args))


async def demo(args: argparse.Namespace) -> int:
    """Tells the story on a private stack, or on the one that was named. Returns 0 only if every check holds."""
    from lamina_cli.demo.target import EMBEDDED, SPLIT, opened
    from lamina_cli.demo.tell import tell
    from lamina_cli.output.progress import Line
    from lamina_cli.stack.embedded import Settings
    from lamina_cli.stack.virtual_run import event_log

    settings = Settings(
        seed=args.seed, clock=args.clock, hosts=args.hosts, fault_plan=fault_plans.read(args.fault_plan)
    )
    private = args.target in (EMBEDDED, SPLIT)
    line = Line("starting a private stack" if private else f"looking for the stack {args.target}")
    with event_log(args.event_log) as sink:
        async with opened(args.target, settings, line.step, sink) as client:
            line.done()
            return await attempt(tell(client, asset("examples/hello.yaml").read_text()))
