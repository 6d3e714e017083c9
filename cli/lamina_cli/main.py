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
    ("stack.demo", "tell the whole story in one private stack, each line a check"),
    ("stack.up", "start a stack in the background and serve its six ports"),
    ("stack.serve", "serve one layer in the foreground, with its own flags"),
    ("stack.down", "stop the stack"),
    ("stack.status", "show what is up: process, engines, health, ports"),
    ("stack.reload", "have the stack read its configuration anew, and show what changed"),
    ("stack.clock", "show, set and advance the stack's clock"),
    ("stack.replay", "replay what was logged of a stack in virtual time"),
    ("cluster.apply", "apply a Kubernetes manifest"),
    ("cluster.get", "list objects of a kind, or show one"),
    ("cluster.logs", "print a pod's output"),
    ("cluster.scale", "change the number of replicas"),
    ("cluster.delete", "delete an object"),
    ("runtime.image", "import, list and delete container images"),
    ("hardware.hardware", "cores, RAM, contexts, run groups"),
    ("mmu.mmu", "spaces, page tables, frames, swap, memory groups"),
    ("hypervisor", "virtual machines, their consoles and exits"),
    ("vswitch.vswitch", "switches, ports, MAC tables"),
    ("runtime.runtime", "containers and processes; run a program of yours"),
    ("cluster.orchestrator", "nodes and objects of the cluster"),
    ("stack.fault", "break things of a layer on purpose, and mend them"),
    ("stack.ca", "make certificates for traffic beyond the host"),
    ("stack.doctor", "tell what this machine can run, and what is missing"),
    ("stack.trace", "print a recorded trace as a tree"),
    ("stack.explain", "tell why a layer did what it did to an object"),
)
"""The module of every word, in `commands/`, and what the word does, in the order of the help text. A word is the last
part of its module's name."""


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
    for module, text in COMMANDS:
        word = module.rpartition(".")[2]
        sub = subparsers.add_parser(word, help=text, description=text[0].upper() + text[1:] + ".")
        if word == wanted:
            sub.set_defaults(word=word)
            import_module(f"lamina_cli.commands.{module}").configure(sub)
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
