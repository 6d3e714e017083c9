"""Frames a second between two veths: our switch at packet sockets, the same without its bypass (`plane`), as devices
of the kernel (`linux`), a Linux bridge, Open vSwitch in userspace; one run.

    python bench/network/switch_veth.py [--seconds 2] [--rounds 5] [--bytes 64]

A sender that does nothing else puts frames of 64 bytes into one veth; what arrives behind the other one is counted by
its interface. Sides take turns; the machine is shared, so only ratios of a round mean much. Needs root, and the program
ovs-vswitchd for its side. Aims: at least as fast as the bridge, and twice as fast as Open vSwitch.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import _wires  # type: ignore[import-not-found]  # it lies beside this script
import numpy as np

BATCH = 64
KINDS = (*_wires.KINDS, _wires.PLANE, _wires.DEVICES)
_QDISC_BYPASS, _SOL_PACKET = 20, 263


def send(interface: str, source: str, target: str, size: int, seconds: float) -> None:
    """Send as many frames as go."""
    from lamina_vswitch.plane.compiled import system_calls

    frame = bytes.fromhex((target + source).replace(":", "")) + b"\x88\xb5" + bytes(size - 14)
    memory = np.frombuffer(bytearray(frame), np.uint8)
    vector = np.array([memory.ctypes.data, len(frame)], np.int64)
    messages = np.zeros((BATCH, 8), np.int64)
    messages[:, 2], messages[:, 3] = vector.ctypes.data, 1
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        sender.bind((interface, 0))
        end = time.monotonic() + seconds
        while True:
            system_calls.send(sender.fileno(), messages.ctypes.data, BATCH)
            if time.monotonic() >= end:
                return


def rate(kind: str, folder: Path, size: int, seconds: float) -> float:
    """Return thousands of frames a second that arrive."""
    with _wires.joined(kind, folder) as ends:
        stations = _wires.STATIONS

        def sender(end: str, source: str, target: str, lasting: float) -> list[str]:
            words = ["--send", f"{end}0", source, target, str(size), str(lasting)]
            return list(ends.inside(end, sys.executable, __file__, *words))

        subprocess.run(sender("b", stations["b"], stations["a"], 0.0), check=True)
        process = subprocess.Popen(sender("a", stations["a"], stations["b"], seconds + 3))
        try:
            first = ends.received("b", "b0")
            while ends.received("b", "b0") < first + 10_000:  # it has begun
                time.sleep(0.05)
            time.sleep(0.2)
            before, began = int(ends.received("b", "b0")), time.monotonic()
            time.sleep(seconds)
            after, ended = int(ends.received("b", "b0")), time.monotonic()
        finally:
            process.kill()
            process.wait()
        return (after - before) / (ended - began) / 1000


def main() -> int:
    """Run all sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=64)
    parser.add_argument("--only", choices=KINDS, action="append", help="a side, instead of all")
    parser.add_argument("--send", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.send is not None:
        interface, source, target, size, seconds = args.send
        send(interface, source, target, int(size), float(seconds))
        return 0
    _wires.enter_namespace()
    kinds = args.only or KINDS
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for kind in kinds:
                found[kind].append(rate(kind, Path(folder) / f"{kind}{number}", args.bytes, args.seconds))
            print(" ".join(f"{kind} {rates[-1]:,.0f} kpps" for kind, rates in found.items()), flush=True)
    print("medians: " + ", ".join(f"{kind} {statistics.median(rates):,.0f} kpps" for kind, rates in found.items()))
    for side, kind, aim in (
        ("ours", "bridge", 1.0),
        ("ours", "ovs", 2.0),
        ("plane", "bridge", 1.0),
        ("linux", "bridge", 1.0),
        ("linux", "ovs", 2.0),
    ):
        if side in found and kind in found:
            ratio = statistics.median(a / b for a, b in zip(found[side], found[kind], strict=True))
            print(f"{side} / {kind}: {ratio:.2f}, aim {aim:.1f}: {'met' if ratio >= aim else 'missed'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
