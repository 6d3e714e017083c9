"""The linux engine: the machine below, as its kernel shows it, with Lamina's own devices beside it.

What the machine consists of are the facts of /proc and /sys; its PCI devices and IOMMU groups are shown, and left to
the kernel. RAM (the memory bus), arbitration, the modelled devices and the wires are those of the model engine: they
need nothing of the kernel, and wires reach it by TAP devices and packet sockets. ADR 0028.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from lamina_hardware.engines.model.engine import ModelEngine


class LinuxEngine(ModelEngine):
    """Decides as the model engine does, over the cores that the kernel gives: those of KVM, or none."""

    cores_of: ClassVar[str] = "kvm"
    real_time_only = True
    shows_host = True

    @classmethod
    def missing(cls) -> list[str]:
        """Returns why this engine cannot run here."""
        if not sys.platform.startswith("linux"):
            return [f"The operating system is {sys.platform}; the facts of /proc and /sys are Linux's"]
        wanted = {"/proc/cpuinfo": "/proc is not mounted", "/sys/devices/system/cpu": "/sys is not mounted"}
        return [
            f"There is no {path}: {why}, or this process may not see it"
            for path, why in wanted.items()
            if not Path(path).exists()
        ]
