"""What a frame costs the kernel between two devices: ports of the engine `linux` beside a plain Linux bridge.

    python bench/network/switch_devices.py [--turns 1000] [--bytes 64]

Both are there at once and take turns of some hundred frames, in one process that sends and does nothing else. On such
short turns the kernel does all the work of a frame in the call that sends it, so the processor time of this process is
the whole cost, and what others do on the machine falls on both sides alike. Needs root. Aim: at most what the bridge
takes. `switch_veth.py` has the rates of long floods, where the kernel's own thread works beside the sender.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import _wires  # type: ignore[import-not-found]  # it lies beside this script
import numpy as np

BATCH, BATCHES = 64, 10
SIDES = ("bridge", _wires.DEVICES)


def main() -> int:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=64)
    args = parser.parse_args()
    from lamina_vswitch.plane.compiled import system_calls

    _wires.enter_namespace()
    a, b = (bytes.fromhex(_wires.STATIONS[end].replace(":", "")) for end in "ab")
    frame = np.frombuffer(bytearray(b + a + b"\x88\xb5" + bytes(args.bytes - 14)), np.uint8)
    vector = np.array([frame.ctypes.data, len(frame)], np.int64)
    messages = np.zeros((BATCH, 8), np.int64)
    messages[:, 2], messages[:, 3] = vector.ctypes.data, 1
    costs: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        ends = {side: stack.enter_context(_wires.joined(side, Path(folder) / side)) for side in SIDES}
        senders = {side: stack.enter_context(ends[side].sender("a", "a0")) for side in SIDES}
        for side in SIDES:
            stack.enter_context(ends[side].sender("b", "b0")).send(a + b + b"\x88\xb5" + bytes(50))
        before = {side: ends[side].received("b", "b0") for side in SIDES}
        for turn in range(args.turns):
            for side in SIDES if turn % 2 else reversed(SIDES):
                file, began = senders[side].fileno(), time.process_time_ns()
                for _ in range(BATCHES):
                    system_calls.send(file, messages.ctypes.data, BATCH)
                costs[side].append((time.process_time_ns() - began) / (BATCH * BATCHES))
        for side in SIDES:
            arrived = (ends[side].received("b", "b0") - before[side]) / (args.turns * BATCH * BATCHES)
            print(f"{side}: {statistics.median(costs[side]):,.0f} ns a frame, {arrived:.1%} arrived")
    ratio = statistics.median(ours / bridge for bridge, ours in zip(*costs.values(), strict=True))
    print(f"{_wires.DEVICES} / bridge: {ratio:.2f}, aim 1.00: {'met' if ratio <= 1.0 else 'missed'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
