"""Finds replacement policies that others wrote: entry points of installed packages, and import paths."""

from __future__ import annotations

import importlib
from importlib import metadata

from lamina_kit.errors import FailedPrecondition
from lamina_mmu.domain.policies.catalogue import OWN
from lamina_mmu.domain.policy import Policy

GROUP = "lamina.policies"
"""Entry points of this group name subclasses of `Policy`; the name of the class counts, not that of the entry."""


def installed(chosen: str) -> tuple[str, dict[str, type[Policy]]]:
    """Returns the name of the policy that was chosen, and all policies that are installed, by name.

    `chosen` is a name or an import path, which adds a policy. POLICY_NOT_LOADABLE for one that cannot be had.
    """
    found: dict[str, type[Policy]] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        _add(found, point.value)
    if ":" in chosen:
        return _add(found, chosen), found
    return chosen, found


def _add(found: dict[str, type[Policy]], path: str) -> str:
    """Adds the policy at an import path; returns its name."""
    module, _, name = path.partition(":")
    try:
        policy = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise _refused(path, f"{type(error).__name__}: {error}") from error
    if not (isinstance(policy, type) and issubclass(policy, Policy)):
        raise _refused(path, "it is no subclass of lamina_mmu.domain.policy.Policy")
    if not policy.name or policy.name in OWN:
        raise _refused(path, f"its name is {policy.name or 'empty'}, which is not its own")
    if found.setdefault(policy.name, policy) is not policy:
        raise _refused(path, f"another policy is named {policy.name}")
    return policy.name


def _refused(path: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"The replacement policy {path} cannot be used: {why}.",
        reason="POLICY_NOT_LOADABLE",
        next_step="Correct LAMINA_MMU_POLICY, or the package that offers the policy.",
    )
