"""The program `nft` in a namespace: it checks a batch whole before any of it holds. Source: nft(8), `-f`."""

from __future__ import annotations

import subprocess

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.engines.linux.namespace import Namespace

_TIMEOUT_S = 20


def apply(namespace: Namespace, batch: str, what: str, *options: str) -> None:
    """Have the kernel take a batch of rules, which are those of `what`; with the option `--check` only see if it would.

    Raises FailedPrecondition `NFT_REFUSED`; then nothing of it holds.
    """
    try:
        status, said = _run(namespace, batch, *options)
    except OSError as error:
        status, said = 1, error.strerror or str(error)
    if status:
        raise FailedPrecondition(
            f"The kernel did not take the rules of {what}: {said.strip()[:400]}.",
            reason="NFT_REFUSED",
            next_step="Install the program nft, and use a kernel with nf_tables.",
        )


def _run(namespace: Namespace, batch: str, *options: str) -> tuple[int, str]:
    """Run nft; return its exit status and what it complained of."""
    pipe = subprocess.PIPE
    with namespace.inside():
        program = subprocess.Popen(
            ["nft", *options, "-f", "-"], text=True, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe
        )
    try:
        _, said = program.communicate(batch, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()
        return 1, f"nft took longer than {_TIMEOUT_S} s"
    return program.returncode, said
