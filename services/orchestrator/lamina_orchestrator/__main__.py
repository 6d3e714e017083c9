"""Runs the orchestrator layer as a process of its own: `python -m lamina_orchestrator --help`."""

from __future__ import annotations

import sys

from lamina_kit.process.main import Role, main
from lamina_orchestrator.config import OrchestratorConfig
from lamina_orchestrator.server import build

CALLS = ("container-runtime", "hypervisor", "vswitch")

if __name__ == "__main__":
    sys.exit(main(Role("orchestrator", build, OrchestratorConfig, CALLS, per_host=False)))
