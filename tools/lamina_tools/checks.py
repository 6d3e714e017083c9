"""`./run check`: everything that can be said about the tree without running it, in steps.

Every step runs, whatever the others say; each prints its name, its result and its time, and its findings when there
are any. `./run check STEP …` runs only some, `./run check --but STEP …` all others.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from lamina_tools import contracts, documents, generate, systems_table
from lamina_tools.tree import LAYERS, ROOT, python_files

Findings = list[str]

BANNER = re.compile(r"[-─-▟▲▶◀▼ ]*")
"""Lines of a tool's output that are drawn, or empty."""


def tool(*arguments: str) -> Findings:
    """Runs a Python tool in the root folder; returns what it printed if it was not content."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return [] if done.returncode == 0 else done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]


def lint() -> Findings:
    """Lints the Python code. How it is laid out is left to its author, within the line length."""
    return tool("ruff", "check", "--output-format", "concise", "--quiet", ".")


def types() -> Findings:
    """Checks types, strictly, over all written code at once."""
    roots = ["kit", "cli", "tools", "tests", "bench", *(str(layer.folder) for layer in LAYERS)]
    return tool("mypy", *(folder for folder in roots if python_files(ROOT, folder)))


def imports() -> Findings:
    """Checks who imports whom."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 0:
        return []
    _, _, broken = done.stdout.partition("Broken contracts\n")
    return [line for line in (broken or done.stdout).splitlines() if not BANNER.fullmatch(line)]


def contract_rules() -> Findings:
    """Lints the contracts and, once they are frozen, holds them to what they promised."""
    image = contracts.image()
    findings = contracts.buf(ROOT, "lint", image)
    before = contracts.read_committed()
    if before is not None and (ROOT / contracts.FROZEN).exists():
        findings += contracts.breaking(ROOT, image, before)
    return findings


def generated() -> Findings:
    """Compares everything generated with what would be generated now."""
    findings = generate.drift(ROOT)
    return [*findings, "./run gen brings them up to date"] if findings else []


def tables() -> Findings:
    """Checks the table of systems, and the numbers of the decisions."""
    numbers = [decision.number for decision in documents.decisions(ROOT)]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    return [*systems_table.findings(ROOT), *(f"docs/adr: two decisions have the number {n:04d}" for n in twice)]


def style() -> Findings:
    """Runs the style tests."""
    return tool("pytest", "-q", "--no-header", "-rN", "-p", "no:cacheprovider", "tests/style")


STEPS: dict[str, Callable[[], Findings]] = {
    "lint": lint,
    "types": types,
    "imports": imports,
    "contracts": contract_rules,
    "generated": generated,
    "tables": tables,
    "style": style,
}


BESIDE = ("types",)
"""Steps that take long in processes of their own: they run beside the others, and are told last."""


def run_step(name: str) -> tuple[Findings, float]:
    """Runs one step; returns what it found and the seconds that it took."""
    start = time.monotonic()
    try:
        findings = STEPS[name]()
    except contracts.ContractsFailed as failure:
        findings = str(failure).splitlines()
    return findings, time.monotonic() - start


def tell(name: str, findings: Findings, seconds: float) -> bool:
    """Tells how a step went; returns whether it found nothing."""
    print(f"{name:<10} {'FAILED' if findings else 'ok':<7} {seconds:5.1f} s", flush=True)
    for finding in findings:
        print(f"    {finding}", flush=True)
    return not findings


def main(arguments: Sequence[str], steps: Sequence[str] = tuple(STEPS)) -> int:
    """Runs `./run check`; returns 0 if no step found anything, 2 for a step that there is not."""
    but = list(arguments[:1]) == ["--but"]
    named = arguments[1:] if but else arguments
    unknown = [name for name in named if name not in STEPS]
    if unknown:
        print(f"run: there is no step {unknown[0]!r}; the steps are {', '.join(STEPS)}", file=sys.stderr)
        return 2
    chosen = [name for name in steps if name not in named] if but else named or steps
    with ThreadPoolExecutor(1) as pool:
        beside = {name: pool.submit(run_step, name) for name in chosen if name in BESIDE}
        failed = [name for name in chosen if name not in beside and not tell(name, *run_step(name))]
        failed += [name for name, step in beside.items() if not tell(name, *step.result())]
    print(f"failed: {', '.join(failed)}" if failed else "everything is in order")
    return int(bool(failed))
