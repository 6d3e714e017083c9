"""Logs, metrics, export and reload of the processes that `lamina up` starts (`lamina_kit/operations/operations.py`)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lamina_cli.client import home
from lamina_kit import config as configuration
from lamina_kit.clock import RealClock
from lamina_kit.operations import settings as operations_config

if TYPE_CHECKING:
    from lamina_cli.stack.embedded import Settings
    from lamina_kit.layer.state import LayerState
    from lamina_kit.operations.operations import Configured, Operations
    from lamina_kit.security.callers import Users


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that stand above the configuration's section of operations."""
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve metrics for Prometheus there (default: not)")
    parser.add_argument("--metrics-remote", action="store_true", help="allow --metrics beyond this machine")


def words(args: argparse.Namespace) -> list[str]:
    """Returns the flags as they are handed to another process."""
    given = [] if args.metrics is None else ["--metrics", args.metrics]
    return [*given, *(["--metrics-remote"] if args.metrics_remote else [])]


def check(args: argparse.Namespace) -> None:
    """Refuses a wrong section of operations before anything is started.

    Raises:
        LaminaError: as `lamina_kit.operations.settings.load`.
    """
    found = operations_config.load(args.config, os.environ, flags_of(args))
    if found.metrics_listen:
        last = len(home.LAYERS) - 1 if args.split else 0
        operations_config.address(found.metrics_listen, found.metrics_remote, last)


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields that the flags set."""
    return {"metrics_listen": args.metrics, "metrics_remote": args.metrics_remote or None}


def configured(settings: Settings, flags: Mapping[str, Any]) -> Configured:
    """Returns the whole configuration of a stack as it stands in file, environment and flags now.

    Raises as `lamina_kit.config.load` and `lamina_kit.operations.settings.load`.
    """
    from lamina_cli.stack.embedded import builder, config_type
    from lamina_kit.operations.operations import Configured

    file = settings.config_file
    if file is not None:
        configuration.check_sections(file, home.LAYERS)
    variables = {**os.environ, **settings.overrides}
    layers = {layer: configuration.load(layer, config_type(builder(layer)), file, variables) for layer in home.LAYERS}
    return Configured(operations_config.load(file, variables, flags), layers)


def of_stack(
    settings: Settings,
    args: argparse.Namespace,
    states: Sequence[LayerState],
    missing: Callable[[], str],
    users: Users,
) -> Operations:
    """Returns the operations of a process that has all layers in it; `states` fills while they start.

    `users` are those who may call it.
    """
    from lamina_kit.operations.operations import Operations, Shown

    read = partial(configured, settings, flags_of(args))
    return Operations(read, Shown(lambda: states, missing, RealClock().wall_ns), users=users)


def of_supervisor(settings: Settings, args: argparse.Namespace) -> Operations:
    """Returns the operations of a process that has no layer: its logs. Its children see to metrics and export."""
    from lamina_kit.operations.operations import Operations, Shown

    def read() -> Configured:
        whole = configured(settings, flags_of(args))
        own = replace(
            whole.operations,
            metrics_listen=None,
            otlp_endpoint=None,
            otlp_traces_endpoint=None,
            otlp_metrics_endpoint=None,
        )
        return replace(whole, operations=own)

    return Operations(read, Shown(list, lambda: "", RealClock().wall_ns))
