"""The KVM engine: contexts, run groups and arbitration of the model engine over cores that are the host's processors.

What differs is what a core is (`io/kvm/core.py`): it has no exact budget and no virtual time, walks two stages always,
and exits for less (`CoreEngine.capabilities`). ADR 0027.
"""

from __future__ import annotations

from typing import ClassVar

from lamina_hardware.engines.model.engine import ModelEngine
from lamina_hardware.io.kvm import abi


class KvmEngine(ModelEngine):
    """The host's decisions, over KVM cores."""

    cores_of: ClassVar[str] = "kvm"
    real_time_only = True

    @classmethod
    def missing(cls) -> list[str]:
        """Returns why this engine cannot run here."""
        return abi.missing()
