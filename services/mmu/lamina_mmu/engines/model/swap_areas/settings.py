"""The host's settings of swapping and reclaim: shown, and changed while it runs.

    free frames   ── low ──▶ reclaim begins, ahead of need     ── high ──▶ it ends, there is room for what is read ahead

Source: Linux, Documentation/admin-guide/sysctl/vm.rst (swappiness, page-cluster, watermark_scale_factor).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina_kit.checks import Checks
from lamina_mmu.domain.effects import PRESSURE, ZEROED
from lamina_mmu.domain.policies.lru import Lru
from lamina_mmu.domain.views import SwapSettingsView
from lamina_mmu.engines.model.machine.state import Machine, usual_watermarks


def show_settings(m: Machine) -> SwapSettingsView:
    """Returns the settings in effect."""
    return SwapSettingsView(m.default_policy.name, m.groups.root.swappiness, m.readahead, m.low, m.high, m.zeroed)


def update_settings(m: Machine, changes: Mapping[str, int | str]) -> None:
    """Changes settings by name, all or none; what they bring about begins at once.

    POLICY_UNKNOWN, POLICY_OFFLINE; REQUEST_INVALID for watermarks above half of RAM or in the wrong order, and for more
    zeroed frames than an eighth of RAM. A watermark of 0 is the usual one, an empty policy is LRU.
    """
    low, high, zeroed = _sizes(m, changes)
    policy = m.live_policy(str(changes["policy"]) or Lru.name) if "policy" in changes else m.default_policy
    m.low, m.high, m.zeroed = low, high, zeroed
    m.readahead = int(changes.get("readahead_pages", m.readahead))
    if "swappiness" in changes:
        m.groups.root.swappiness = int(changes["swappiness"])
    if policy is not m.default_policy:
        m.choose_default(policy)
    m.record(m.names.group(m.groups.root.name), "swap_settings.changed", **dict[str, Any](changes))
    if m.frames.free < m.low:
        m.ports.wake(PRESSURE, None)
    if m.frames.zeroed < m.zeroed:
        m.ports.wake(ZEROED, None)


def _sizes(m: Machine, changes: Mapping[str, int | str]) -> tuple[int, int, int]:
    """Returns (low watermark, high watermark, zeroed frames) as they are to be."""
    count = m.frames.count
    low, zeroed = int(changes.get("low_watermark_frames", m.low)), int(changes.get("zeroed_frames", m.zeroed))
    low = low or usual_watermarks(count)[0]
    high = int(changes.get("high_watermark_frames", 0 if "low_watermark_frames" in changes else m.high))
    high = high or usual_watermarks(count, low)[1]
    with Checks() as check:
        check.range("settings.low_watermark_frames", low, 1, count // 2)
        check.range("settings.high_watermark_frames", high, low, count * 3 // 4)
        check.range("settings.zeroed_frames", zeroed, 0, count // 8)
    return low, high, zeroed
