"""Open vSwitch without any kernel part, as a judge of switching: started in a folder, asked about single frames.

Its devices are dummies and its time stands still. `ofproto/trace` with a frame does what the switch does with it,
learning included, and says by which actions; these are carried out here. Source: ovs-vswitchd(8), ofproto/trace.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina_vswitch.domain.policy.trunk import Trunk

_BRIDGE = "br0"
_OWN_PORT = 100
"""Number of the interface `br0`; dummies `p1`, `p2` and so on have those of their names."""
_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
_ACTION = re.compile(r"[^,(]+(?:\([^)]*\))?")
_PUSH = re.compile(r"push_vlan\((?:tpid=0x8100,)?vid=(\d+),pcp=(\d+)(,cfi=0)?\)")


class OpenVSwitch:
    """A switch daemon with its database, in a folder of its own; `close` ends both."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or shutil.which("ovs-vswitchd") is None or not _SCHEMA.exists():
            pytest.skip("there is no program ovs-vswitchd, or it needs root")
        self._folder = folder
        self._environment = {
            **os.environ,
            **{f"OVS_{name}DIR": str(folder) for name in ("RUN", "LOG", "DB", "SYSCONF")},
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._channel: socket.socket | None = None
        database = f"unix:{folder}/db.sock"
        self._vsctl = ["ovs-vsctl", f"--db={database}", "-t", "20"]
        try:
            self._run("ovsdb-tool", "create", f"{folder}/db", str(_SCHEMA))
            self._start(
                "ovsdb-server", f"{folder}/db", f"--remote=punix:{folder}/db.sock", f"--unixctl={folder}/db.ctl"
            )
            dummies = ("--enable-dummy=override", "--disable-system", "--disable-system-route")
            self._start("ovs-vswitchd", database, *dummies, f"--unixctl={folder}/vs.ctl")
            self._run(*self._vsctl, "--retry", "init")
            self._run("ovs-appctl", "-T", "20", "-t", f"{folder}/vs.ctl", "version")
            self._channel = socket.socket(socket.AF_UNIX)
            self._channel.settimeout(20)
            self._channel.connect(f"{folder}/vs.ctl")
            self._decoder, self._unread, self._calls = json.JSONDecoder(), "", 0
            self._call("time/stop")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def bridge(self, ports: Iterable[tuple[int, int, Trunk | None]]) -> Iterator[None]:
        """Have a bridge for a while, with ports of (number, VLAN, trunk or None); a trunk has ranges."""
        words = ["add-br", _BRIDGE, "--", "set", "bridge", _BRIDGE, "datapath_type=dummy", "fail-mode=standalone"]
        for number, vlan, trunk in ports:
            settings = ["vlan_mode=access", f"tag={vlan}"]
            if trunk is not None:
                carried = sorted({trunk.native, *(each for a, b in trunk.ranges for each in range(a, b + 1))})
                settings = ["vlan_mode=native-untagged", f"tag={vlan}", "trunks=" + ",".join(map(str, carried))]
            words += ["--", "add-port", _BRIDGE, f"p{number}", "--", "set", "interface", f"p{number}", "type=dummy"]
            words += ["--", "set", "port", f"p{number}", *settings]
        self._run(*self._vsctl, *words)
        try:
            yield
        finally:
            self._run(*self._vsctl, "del-br", _BRIDGE)

    def send(self, port: int, frame: bytes) -> dict[int, bytes]:
        """Send a frame into a port; return which frame leaves by which port."""
        said = self._call("ofproto/trace", _BRIDGE, f"in_port=p{port}", frame.hex())
        (actions,) = (line for line in said.splitlines() if line.startswith("Datapath actions: "))
        return _carried_out(frame, actions.removeprefix("Datapath actions: "))

    def addresses(self) -> list[tuple[int, bytes, int]]:
        """Return (VLAN, address, port) of what was learned, sorted."""
        numbers = {}
        for line in self._call("dpif/show").splitlines():
            if found := re.fullmatch(r"\s+p(\d+) (\d+)/(\d+): \(dummy\)", line):
                numbers[found[2]] = int(found[1])
        rows = [line.split() for line in self._call("fdb/show", _BRIDGE).splitlines()[1:]]
        return sorted((int(vlan), bytes.fromhex(mac.replace(":", "")), numbers[port]) for port, vlan, mac, _ in rows)

    def close(self) -> None:
        """End the daemons."""
        if self._channel is not None:
            self._channel.close()
        for process in reversed(self._processes):
            process.terminate()
            process.wait(20)

    def _start(self, *command: str) -> None:
        arguments = [*command, "-vconsole:off", "--no-chdir"]
        self._processes.append(subprocess.Popen(arguments, env=self._environment, stderr=subprocess.DEVNULL))

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr

    def _call(self, method: str, *params: str) -> str:
        """Ask the daemon by JSON-RPC. Source: ovsdb-server(7), unixctl."""
        assert self._channel is not None
        self._calls += 1
        self._channel.sendall(json.dumps({"id": self._calls, "method": method, "params": params}).encode())
        while True:
            try:
                answer, end = self._decoder.raw_decode(self._unread)
            except json.JSONDecodeError:
                data = self._channel.recv(1 << 16)
                assert data, "the daemon has ended"
                self._unread += data.decode()
                continue
            self._unread = self._unread[end:].lstrip()
            assert answer["id"] == self._calls and answer["error"] is None, answer
            return str(answer["result"])


def _carried_out(frame: bytes, actions: str) -> dict[int, bytes]:
    """Return which frame leaves by which port: tags are put on and taken off in the order of the actions."""
    found: dict[int, bytes] = {}
    for action in _ACTION.findall(actions):
        if action.isdigit():
            assert int(action) not in found, "a port gets a frame once"
            found[int(action)] = frame
        elif action == "pop_vlan":
            frame = frame[:12] + frame[16:]
        elif pushed := _PUSH.fullmatch(action):
            tag = int(pushed[2]) << 13 | int(pushed[1])
            frame = frame[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + frame[12:]
        else:
            assert action == "drop", actions
    found.pop(_OWN_PORT, None)  # ours has none
    return found
