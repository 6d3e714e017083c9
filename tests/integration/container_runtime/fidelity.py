"""Measures the touch programs on this machine's kernel and in a container, and writes both down side by side."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.contract.container_runtime.runtime_stack import compile_test_program, image_of, running

PROGRAMS: Mapping[str, str] = {
    "sequential": "128 pages in their order",
    "random": "300 accesses to 1024 pages, seeded",
    "strided": "every seventh, then every fifth of 1200 pages",
    "read-first": "anonymous memory that is read before it is written",
    "fork": "a child copies half of 64 pages, then the parent writes all",
    "generations": "the same with a grandchild",
    "shared": "shared anonymous memory over a fork",
    "file": "a file mapped privately and shared, read, written, and read by a child",
    "shared-file": "a shared mapping of a file, written",
    "heap": "brk up, down and up",
    "dropping": "MADV_DONTNEED, munmap of the middle, mapped again",
    "protecting": "read-only, writable, inaccessible, writable",
    "stack": "200 pages of stack growth",
    "kernel": "memory that the kernel touches in read and write",
}
"""What each program touches, by its name."""
ACCEPTED: Mapping[str, str] = {
    "read-first": "the model has no zero page: a read takes a frame at once, and the write after it faults no more",
    "shared-file": "shared writable mappings of files are refused in the model (ENODEV)",
}
"""Why a program may differ; each is a row of docs/divergences.md."""
PREAMBLE = """\
# Fidelity: the model's memory beside Linux's

The same program file ([touch.c](../tests/contract/container_runtime/programs/touch.c)) runs on Linux and in a container
of the `model` kernel, and tells what each phase cost: page faults as `getrusage` counts them, and how many pages more
are resident after it (`Rss` of `/proc/self/smaps_rollup`). Huge pages are off in both (Linux: `PR_SET_THP_DISABLE`),
and a read fault maps up to 64 KiB around it in both (Linux: `fault_around_bytes` as it is by default). What a program
needs to count it touches before it counts; its start is not in the numbers.

`./run test tests/integration/container_runtime/test_fidelity.py --update-golden` writes this page, and the same test
without the option demands that it is true. The differences are in [divergences.md](divergences.md).
"""
HEADINGS = (
    "| program | phase | faults: model | faults: Linux | resident pages: model | resident pages: Linux | verdict |"
)
_PR_SET_THP_DISABLE = 41
"""Source: prctl(2)."""


@dataclass(frozen=True)
class Phase:
    """What one phase cost: page faults, and resident pages more than before; or the error that refused it."""

    name: str
    minor: int = 0
    major: int = 0
    resident: int = 0
    refused: str = ""

    @property
    def faults(self) -> str:
        """Faults for people."""
        return self.refused or str(self.minor) + (f" + {self.major} major" if self.major else "")


Measured = dict[str, list[Phase]]
"""Phases by program."""


def parsed(output: str) -> list[Phase]:
    """Returns the phases that a program told, in their order."""
    phases = []
    for line in output.splitlines():
        name, *rest = line.split()
        if rest[0] == "refused":
            phases.append(Phase(name, refused=f"refused ({errno_name(int(rest[1]))})"))
        else:
            minor, major, pages = (int(number) for number in rest)
            phases.append(Phase(name, minor, major, pages))
    return phases


def errno_name(number: int) -> str:
    """Returns ENODEV for 19."""
    return {19: "ENODEV", 22: "EINVAL", 12: "ENOMEM"}.get(number, str(number))


@contextmanager
def without_huge_pages() -> Iterator[None]:
    """Has the programs that are started within use no huge pages, whatever the machine's setting."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_THP_DISABLE)")
    try:
        yield
    finally:
        libc.prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)


def on_linux(folder: Path) -> Measured:
    """Runs all programs on this machine's kernel."""
    program = folder / "touch"
    program.write_bytes(compile_test_program("touch"))
    program.chmod(0o755)
    found: Measured = {}
    with without_huge_pages():
        for name in PROGRAMS:
            done = subprocess.run(
                [program, name], cwd=folder, env={}, capture_output=True, text=True, timeout=30, check=True
            )
            found[name] = parsed(done.stdout)
    return found


async def in_the_model(folder: Path) -> Measured:
    """Runs all programs in containers of the model kernel."""
    found: Measured = {}
    async with running(folder) as stack:
        image = await stack.import_image(image_of("touch"))
        for name in PROGRAMS:
            ended = await stack.run(image, "/touch", name)
            assert ended.code == 0, f"{name}: {ended.message} {ended.err.decode()}"
            found[name] = parsed(ended.out.decode())
    return found


def measured_on() -> str:
    """Returns the line that says where the numbers are from."""
    release = os.uname().release.partition("-")[0]
    return f"Measured on Linux {release}, {platform.machine()}."


def document(model: Measured, linux: Measured) -> str:
    """Returns docs/fidelity.md."""
    lines = [PREAMBLE, measured_on(), "", HEADINGS, "|---|---|---|---|---|---|---|"]
    for name, what in PROGRAMS.items():
        lines.append(f"| **{name}**: {what} | | | | | | {verdict(name, model, linux)} |")
        lines += rows(model[name], linux[name])
    return "\n".join(lines) + "\n"


def verdict(name: str, model: Measured, linux: Measured) -> str:
    """Returns one word, or why a difference is accepted."""
    if model[name] == linux[name]:
        return "equal"
    return f"differs: {ACCEPTED[name]}" if name in ACCEPTED else "**differs**"


def rows(model: list[Phase], linux: list[Phase]) -> list[str]:
    """Returns the rows of a program, by phase; a phase that one of them has not is empty there."""
    names = list(dict.fromkeys(phase.name for phase in (*model, *linux)))
    left, right = {phase.name: phase for phase in model}, {phase.name: phase for phase in linux}
    found = []
    for name in names:
        a, b = left.get(name), right.get(name)
        faults = f"{a.faults if a else '–'} | {b.faults if b else '–'}"
        pages = f"{_pages(a)} | {_pages(b)}"
        found.append(f"| | {name} | {faults} | {pages} | {'equal' if a == b else 'differs'} |")
    return found


def _pages(phase: Phase | None) -> str:
    return "–" if phase is None or phase.refused else f"{phase.resident:+d}" if phase.resident else "0"
