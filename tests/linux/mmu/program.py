"""A process beside the tests that touches memory as it is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import ctypes, mmap, os, sys
held = []
for line in sys.stdin:
    word, size = line.split()
    if word == "lock":
        ctypes.CDLL(None).mlockall(2)  # MCL_FUTURE
    if word in ("touch", "lock"):
        held.append(mmap.mmap(-1, int(size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].write(b"x" * int(size))
    elif word == "file":
        with open(sys.argv[1], "wb") as out:
            out.write(bytes(int(size)))
            out.flush()
            os.fsync(out.fileno())
    elif word == "check":
        assert all(one[:] == b"x" * len(one) for one in held)
    print("done", flush=True)
"""


class Program:
    """A process that touches memory as it is told."""

    def __init__(self, scratch: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", PROGRAM, str(scratch)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, word: str, size: int) -> bool:
        """Has it do something; returns whether it lived to say so."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{word} {size}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()
        for end in (self.process.stdin, self.process.stdout):
            if end is not None:
                end.close()
