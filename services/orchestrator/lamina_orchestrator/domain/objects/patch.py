"""Changes as data: merge patches, and the three-way merge of an apply.

Source: RFC 7386 (JSON merge patch); Kubernetes documentation, "Declarative management of objects" (last applied).
"""

from __future__ import annotations

from typing import Any

from lamina_orchestrator.domain.kinds.plain_object import Object

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_WHOLE = {("spec", "strategy")}
"""Objects that an apply replaces as a whole, because their parts exclude each other (`retainKeys` in Kubernetes)."""


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with a merge patch applied: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), part)
    return merged


def three_way(last: Any, wanted: Object, live: Object, path: tuple[str, ...] = ()) -> Object:
    """The live object as a manifest wants it.

    What `last` (the manifest applied before) set and `wanted` leaves out is removed; what neither names is kept. Lists
    are replaced as a whole.
    """
    before = last if isinstance(last, dict) else {}
    merged = {name: part for name, part in live.items() if name in wanted or name not in before}
    for name, part in wanted.items():
        here = (*path, name)
        both = isinstance(part, dict) and isinstance(merged.get(name), dict) and here not in _WHOLE
        merged[name] = three_way(before.get(name), part, merged[name], here) if both else part
    return merged
