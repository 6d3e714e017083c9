"""The `lamina` command: one sub-command a layer, and the words that go across layers.

Nothing heavy is imported before a command runs, so that `lamina --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

COMMANDS = (
    ("demo", "tell the whole story in one private stack, each line a check"),
    ("up", "start a stack in the background and serve its six ports"),
    ("serve", "serve one layer in the foreground, with its own flags"),
    ("down", "stop the stack"),
    ("status", "show what is up: process, engines, health, ports"),
    ("reload", "have the stack read its configuration anew, and show what changed"),
    ("clock", "show, set and advance the stack's clock"),
    ("replay", "replay what was logged of a stack in virtual time"),
    ("apply", "apply a Kubernetes manifest"),
    ("get", "list objects of a kind, or show one"),
    ("logs", "print a pod's output"),
    ("scale", "change the number of replicas"),
    ("delete", "delete an object"),
    ("image", "import, list and delete container images"),
    ("hardware", "cores, RAM, contexts, run groups"),
    ("mmu", "spaces, page tables, frames, swap, memory groups"),
    ("hypervisor", "virtual machines, their consoles and exits"),
    ("vswitch", "switches, ports, MAC tables"),
    ("runtime", "containers and processes; run a program of yours"),
    ("orchestrator", "nodes and objects of the cluster"),
    ("fault", "break things of a layer on purpose, and mend them"),
    ("ca", "make certificates for traffic beyond the host"),
    ("doctor", "tell what this machine can run, and what is missing"),
    ("trace", "print a recorded trace as a tree"),
    ("explain", "tell why a layer did what it did to an object"),
)
"""Every word and what it does, in the order of the help text. The module of a word has its name."""


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser; only the module of the word that `words` start with is imported."""
    parser = argparse.ArgumentParser(
        prog="lamina",
        description="A whole virtualization stack, from page frames to pods.",
        epilog="Start with `lamina demo`. Every list takes `-o json`; `lamina WORD --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"lamina {metadata.version('lamina')}")
    subparsers = parser.add_subparsers(metavar="WORD", required=True)
    wanted = next((word for word in words if not word.startswith("-")), "")
    for word, text in COMMANDS:
        sub = subparsers.add_parser(word, help=text, description=text[0].upper() + text[1:] + ".")
        if word == wanted:
            sub.set_defaults(word=word)
            import_module(f"lamina_cli.commands.{word}").configure(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status: 0 done, 1 refused or failed, 2 misused, 130 interrupted."""
    # gRPC's own lines on standard error say less than our errors do; who wants them sets the variable.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.umask(0o077)  # state, logs, recordings and dumps are for their user alone (`security/private_folder.py`)
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(words).parse_args(words)
    try:
        status: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output left (`| head`); what it did not want is not an error.
        sys.stderr.close()
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
