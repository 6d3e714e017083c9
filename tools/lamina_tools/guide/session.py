"""A reader who types what a page says: one shell a page, in a folder and with stacks of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

from lamina_tools.guide.blocks import Block, Step
from lamina_tools.guide.likeness import difference
from lamina_tools.tree import ROOT

PORTS = 48
"""How many ports in a row a page may use."""
_STACK_PORTS = 11
"""Those of two hosts and an orchestrator."""
_DEFAULT_PORT = 50051
_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+|(?<=localhost:)\d+|(?<=--port )\d+")
_PROMPT_S = 120.0
_WAIT = "for turn in {{1..600}}; do (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; sleep 0.05; done; "
"""For a service that was started in the background: until it listens."""
_APART = ("unshare", "--net", "--mount")
_PREPARED = "ip link set lo up; mkdir -p /run/netns; mount -t tmpfs none /run/netns; "
"""What makes a network of its own usable: loopback, and names of namespaces that nobody else has."""


class PageBroken(Exception):
    """A command did not do what its page says; the message shows both."""


def lacking(block: Block) -> str:
    """Returns why a block cannot be run here, empty when it can."""
    if block.not_run:
        return f"not run: {block.not_run}"
    for need in block.needs:
        if need == "root":
            if os.geteuid() != 0:
                return "needs root"
            if subprocess.run([*_APART, "true"], capture_output=True, check=False).returncode:
                return "this kernel gives no network namespace"
        elif need == "kvm":
            if not os.access("/dev/kvm", os.R_OK | os.W_OK):
                return "/dev/kvm is not there, or not for this user"
        elif shutil.which(need, path=_path()) is None:
            return f"there is no program {need}"
    return ""


def wants_root(page: Sequence[Block]) -> bool:
    """Says whether a page has commands that only root may run, and that are run here."""
    return any("root" in block.needs and not lacking(block) for block in page)


class Session:
    """One shell, in which the commands of a page are run in their order."""

    def __init__(self, folder: Path, first_port: int, apart: bool = False) -> None:
        """Starts it.

        Args:
            folder: an empty folder, in which it runs.
            first_port: the first of `PORTS` ports that nobody else uses.
            apart: whether it has a network and mounts of its own, which go with it; for root alone.
        """
        self._folder = folder
        self._ports = {_DEFAULT_PORT + n: first_port + n for n in range(_STACK_PORTS)}
        self._next_port = first_port + _STACK_PORTS
        self._count = 0
        for name in ("guests", "examples"):
            (folder / name).symlink_to(ROOT / name)
        entry = folder / "run"
        entry.write_text(f'#!/bin/sh\nexec {sys.executable} -m lamina_cli.main "$@"\n')
        entry.chmod(0o755)
        self._home = folder / "home"
        self._shell = subprocess.Popen(
            [*(_APART if apart else ()), "bash", "-c", f"{_PREPARED if apart else ''}exec bash --norc --noprofile"],
            cwd=folder,
            env={**os.environ, "LAMINA_HOME": str(self._home), "PATH": _path(), "COLUMNS": "120"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def check(self, block: Block) -> None:
        """Runs a block's commands; raises PageBroken for the first that does not do what the page says."""
        for step in block.steps:
            status, printed, complained = self.run(step)
            if status and not step.output:
                raise PageBroken(f"line {step.line}: $ {step.command}\nends with {status}\n{printed}{complained}")
            told = printed + complained if status else printed
            found = difference(step.output, told.splitlines(), block.varies) if step.output else ""
            if found:
                raise PageBroken(f"line {step.line}: $ {step.command}\n{found}")

    def run(self, step: Step) -> tuple[int, str, str]:
        """Runs a command. Returns its status, what it printed and what it complained of."""
        self._count += 1
        out, err = (self._folder / f".{kind}-{self._count}" for kind in ("out", "err"))
        assert self._shell.stdin is not None and self._shell.stdout is not None
        command = self._here(step.command)
        listening = re.findall(r"--listen 127\.0\.0\.1:(\d+)", command) if _in_background(command) else []
        waits = "".join(_WAIT.format(port=port) for port in listening)
        self._shell.stdin.write(f"{{ {command}\n}} >{out} 2>{err} </dev/null; status=$?; {waits}echo $status\n")
        self._shell.stdin.flush()
        with _no_longer_than(self._shell, _PROMPT_S):
            answer = self._shell.stdout.readline()
        if not answer:
            raise PageBroken(f"line {step.line}: $ {step.command}\nends the shell, or took {_PROMPT_S:g} s")
        return int(answer), self._there(out.read_text()), self._there(err.read_text())

    def close(self) -> None:
        """Stops what the page started: stacks, and processes in the background."""
        for record in sorted(self._home.glob("*/stack.json")):
            self.run(Step(0, f"./run down --stack {record.parent.name}", ()))
        if self._shell.stdin is not None:
            self._shell.stdin.close()
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGTERM)
        self._shell.wait()

    def _here(self, command: str) -> str:
        """Returns a command with ports that are free here, the same for the same port of the page."""
        command = re.sub(r"\./run up\b(?![^\n|;&#]*--port)", f"./run up --port {_DEFAULT_PORT}", command)
        for found in re.findall(r"--port (\d+)", command):
            if int(found) not in self._ports:
                self._take(int(found), _STACK_PORTS)
        for found in _PORT.findall(command):
            if int(found) not in self._ports:
                self._take(int(found), 1)
        return _PORT.sub(lambda found: str(self._ports[int(found[0])]), command)

    def _there(self, printed: str) -> str:
        """Returns what was printed with the page's ports."""
        pages = {here: page for page, here in self._ports.items()}
        return _PORT.sub(lambda found: str(pages.get(int(found[0]), found[0])), printed)

    def _take(self, port: int, count: int) -> None:
        for number in range(count):
            self._ports[port + number] = self._next_port + number
        self._next_port += count


@contextmanager
def _no_longer_than(shell: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """Kills the shell when the block takes longer, so that a read of what it prints ends."""
    timer = Timer(seconds, lambda: os.killpg(shell.pid, signal.SIGKILL))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _in_background(command: str) -> bool:
    return re.sub(r"\s#.*", "", command).rstrip().endswith("&")


def _path() -> str:
    """Returns the search path, with the environment's own programs in front: grpcurl is one of them."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
