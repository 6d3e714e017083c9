"""Programs of eBPF at the ends of devices: assembled, loaded, and set to run. Source: tc-bpf(8)."""

from __future__ import annotations

import os

from lamina_vswitch.ebpf.assembler import Program, assemble
from lamina_vswitch.ebpf.programs import load_classifier
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.netlink.traffic_control import EVERY_FRAME, run_program


def attach(netlink: Netlink, index: int, end: int, program: Program, name: str, *frames: int) -> None:
    """Run a program at an end of a device, on every frame or on those of some kinds, in place of what ran there.

    Raises FailedPrecondition `BPF_REFUSED`, Unavailable `KERNEL_REFUSED`.
    """
    descriptor = load_classifier(assemble(program))
    try:
        for each in frames or (EVERY_FRAME,):
            run_program(netlink, index, end, descriptor, name, each)
    finally:
        os.close(descriptor)
