"""`lamina serve`: one layer in the foreground, as a process of its own."""

from __future__ import annotations

import argparse
import os
import sys

from lamina_cli.client import home
from lamina_cli.output import printing


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("layer", choices=home.LAYERS, help="which one")
    parser.add_argument(
        "flags",
        nargs=argparse.REMAINDER,
        help="flags of the layer, for example --listen 127.0.0.1:55052; --help lists them",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Becomes the layer's process: signals, output and exit status are its own. Returns 1 where nothing serves it."""
    from lamina_cli.stack.split import package
    from lamina_kit.errors import LaminaError

    try:
        module = package(args.layer)
    except LaminaError as error:
        printing.error(error)
        return 1
    return os.execv(sys.executable, [sys.executable, "-m", module, *args.flags])
