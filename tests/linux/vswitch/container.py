"""What a container is to a network: a namespace of the kernel behind a TAP port, with an address by the kernel's side.

The device is made by the switch's own process, in whose namespace it is for a moment, and then moved.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from lamina.vswitch.v1 import backends_pb2
from lamina.vswitch.v1 import vswitch_pb2 as pb
from tests.integration.vswitch.plugging import plug
from tests.linux.hardware.network import Network

LEASED = """#!/bin/sh
case $1 in
deconfig) busybox ip addr flush dev $interface; busybox ip link set $interface up ;;
bound)
    busybox ip addr add $ip/$mask dev $interface
    busybox ip route add default via $router
    echo "$interface has $ip/$mask via $router, names by $dns in $domain, mtu $mtu"
    ;;
esac
"""
"""What a DHCP client does with a lease."""


class Container:
    """A namespace with one interface, plugged into a port of a service in this process."""

    def __init__(self, network: Network, folder: Path, name: str) -> None:
        self.network, self.name = network, name
        self.folder, self._programs = folder, list[subprocess.Popen[bytes]]()
        folder.mkdir()
        network.do(lambda: Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1"))

    async def plug_in(self, running: Any, port: pb.Port, mac: str = "") -> None:
        """Have a TAP device at a port, up and without an address; `mac` is its address if one is given."""
        await plug(running, port, tap=backends_pb2.TapBackend(interface=self.name))
        _move(self.name, self.network.do(threading.get_native_id))
        self.network.do(lambda: Path(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6").write_text("1"))
        if mac:
            self.network.run(f"ip link set {self.name} address {mac}")
        self.network.run(f"ip link set {self.name} up")

    async def run(self, command: str, *, fails: bool = False) -> str:
        """Run a command inside, while frames are carried; return what it printed. It succeeds, or it fails."""
        return await asyncio.to_thread(self.network.do, lambda: _printed(command, fails))

    async def get_address(self) -> str:
        """Get an address by DHCP, under the container's own name; return what the client printed."""
        script = self.folder / "leased"
        script.write_text(LEASED)
        script.chmod(0o755)
        options = f"-n -q -t 10 -T 1 -x hostname:{self.name} -s {script}"
        return await self.run(f"busybox udhcpc -i {self.name} {options}")

    def serve(self, files: dict[str, bytes], port: int = 80) -> None:
        """Serve files over HTTP."""
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        words = ["busybox", "httpd", "-f", "-p", str(port), "-h", str(self.folder)]
        self._programs.append(self.network.do(lambda: subprocess.Popen(words, stderr=subprocess.DEVNULL)))

    def close(self) -> None:
        """End the programs."""
        for program in self._programs:
            program.kill()
            program.wait(20)


def _move(interface: str, thread: int) -> None:
    """Move an interface into the namespace of a thread of this process."""
    command = f"ip link set {interface} netns /proc/{os.getpid()}/task/{thread}/ns/net"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=20)


def _printed(command: str, fails: bool) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=25)
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout
