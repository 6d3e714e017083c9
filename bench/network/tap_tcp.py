"""TCP between two namespaces: through TAP devices of our switch, through those of Open vSwitch, and a Linux bridge.

    python bench/network/tap_tcp.py [--seconds 3] [--rounds 5] [--tso]

One stream of iperf3, from one namespace to the other. The bridge joins veths, as it has no TAP devices of its own.
`--tso` lets Open vSwitch pass segments uncut, which it does not do by default. Sides take turns; the machine is shared,
so only ratios of a round mean much. Needs root, iperf3, and ovs-vswitchd for its side. Aim: at least Open vSwitch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import _wires  # type: ignore[import-not-found]  # it lies beside this script


def rate(kind: str, folder: Path, seconds: int) -> float:
    """Return gigabits a second that the receiver got."""
    with _wires.joined(kind, folder, taps=True) as ends:
        target = _wires.ADDRESSES["b"]
        server = subprocess.Popen(
            ends.inside("b", "iperf3", "-s", "-1", "-B", target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 20
            while target not in _wires.run(*ends.inside("b", "ss", "-ltnH")):
                if time.monotonic() > deadline:
                    raise RuntimeError("iperf3 does not listen")
                time.sleep(0.05)
            said = _wires.run(*ends.inside("a", "iperf3", "-c", target, "-t", str(seconds), "-O", "1", "-J"))
        finally:
            server.kill()
            server.wait()
        return float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) / 1e9


def main() -> int:
    """Run all sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=_wires.KINDS, action="append", help="a side, instead of all")
    parser.add_argument("--tso", action="store_true", help="let Open vSwitch pass segments uncut")
    args = parser.parse_args()
    os.environ["LAMINA_BENCH_TSO"] = "true" if args.tso else "false"
    _wires.enter_namespace()
    kinds = args.only or _wires.KINDS
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for kind in kinds:
                found[kind].append(rate(kind, Path(folder) / f"{kind}{number}", args.seconds))
            print(" ".join(f"{kind} {rates[-1]:.2f} Gb/s" for kind, rates in found.items()), flush=True)
    print("medians: " + ", ".join(f"{kind} {statistics.median(rates):.2f} Gb/s" for kind, rates in found.items()))
    for kind, aim in (("ovs", 1.0), ("bridge", None)):
        if "ours" in found and kind in found:
            ratio = statistics.median(a / b for a, b in zip(found["ours"], found[kind], strict=True))
            verdict = "" if aim is None else f", aim {aim:.1f}: {'met' if ratio >= aim else 'missed'}"
            print(f"ours / {kind}: {ratio:.2f}{verdict}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
