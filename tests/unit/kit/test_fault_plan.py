"""Plans of RPC faults: parsing, matching, counting, chance."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kit.errors import InvalidArgument
from lamina_kit.faults.plan import FaultPlan, RpcFault, Verdict
from lamina_kit.rng import Rng

FAULT = "/lamina.mmu.v1.Spaces/Fault"


def plan(*rules: dict[str, Any], seed: int = 1) -> FaultPlan:
    """Returns a plan."""
    return FaultPlan.parse({"rule": list(rules)}, Rng(seed))


def struck(of: FaultPlan, calls: int, now_ns: int = 0) -> list[int]:
    """Returns which of some calls of the runtime to the MMU, counted from 1, meet a fault."""
    verdicts = [of.decide("container-runtime", "mmu", FAULT, now_ns) for _ in range(calls)]
    return [number for number, verdict in enumerate(verdicts, 1) if verdict is not None]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, True),
        ({"method": "Spaces/Fault"}, True),
        ({"method": "Spaces/*"}, True),
        ({"method": FAULT}, True),
        ({"method": "*lamina.mmu.*"}, True),
        ({"method": "lamina.mmu.*"}, False),
        ({"method": "Groups/*"}, False),
        ({"layer": "mmu", "caller": "container-*"}, True),
        ({"layer": "hardware"}, False),
        ({"caller": "hypervisor"}, False),
    ],
)
def test_rules_match_by_layer_caller_and_method(match: dict[str, str], hit: bool) -> None:
    """Globs are matched with the layer, the caller, and the method in its short or its full form."""
    assert bool(struck(plan({"kind": "drop", **match}), 1)) is hit


def test_a_rule_may_strike_some_calls_only() -> None:
    """Calls are counted from 1 as they match; the window of time is half open."""
    assert struck(plan({"kind": "drop", "first_call": 2, "last_call": 3}), 5) == [2, 3]
    timed = plan({"kind": "drop", "after_ns": 10, "until_ns": 20})
    assert [bool(struck(timed, 1, now)) for now in (9, 10, 19, 20)] == [False, True, True, False]


def test_chance_is_the_seed_s() -> None:
    """One seed gives the same calls each time, another others; the share is about the probability."""
    rule = {"kind": "drop", "ppm": 100_000}
    first, again, other = (struck(plan(rule, seed=seed), 2000) for seed in (1, 1, 2))
    assert first == again != other
    assert 140 < len(first) < 260


def test_a_seed_in_the_plan_stands_above() -> None:
    """The file's seed decides when it has one."""
    rule = {"kind": "drop", "ppm": 300_000}
    one = FaultPlan.parse({"seed": 5, "rule": [rule]}, Rng(1))
    two = FaultPlan.parse({"seed": 5, "rule": [rule]}, Rng(2))
    assert struck(one, 50) == struck(two, 50)


def test_one_rule_s_draws_move_no_other_s() -> None:
    """A rule in front changes which calls a later rule strikes only where both strike."""
    later = {"kind": "drop", "ppm": 300_000, "layer": "mmu"}
    alone = struck(plan({"kind": "drop", "layer": "vswitch"}, later), 50)
    delayed = plan({"kind": "delay", "min_ns": 5, "ppm": 500_000}, later)
    kinds = [delayed.decide("container-runtime", "mmu", FAULT, 0) for _ in range(50)]
    assert [n for n, verdict in enumerate(kinds, 1) if verdict is not None and verdict.kind is not None] == alone


def test_delays_add_up_and_the_first_other_kind_counts() -> None:
    """A call may be late and fail; of two failures the first rule's is taken."""
    both = plan(
        {"kind": "delay", "min_ns": 5, "max_ns": 5},
        {"kind": "fail", "after": True, "code": "ABORTED", "reason": "BROKEN"},
        {"kind": "drop"},
        {"kind": "delay", "min_ns": 7},
    )
    assert both.decide("cli", "mmu", FAULT, 0) == Verdict(RpcFault.FAIL, 2, 12, 0, True, "ABORTED", "BROKEN")


def test_a_plan_ends() -> None:
    """After its end no call meets a fault."""
    ended = plan({"kind": "drop"})
    ended.end()
    assert not struck(ended, 3)


def test_channels_that_no_rule_looks_at_are_known() -> None:
    """`concerns` says whether a pair of layers can meet a fault at all."""
    some = plan({"kind": "drop", "layer": "mmu", "caller": "hyper*"})
    assert some.concerns("hypervisor", "mmu")
    assert not some.concerns("hypervisor", "hardware") and not some.concerns("cli", "mmu")


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ({"rules": []}, "rules"),
        ({"seed": "x"}, "seed"),
        ({"rule": {}}, "rule"),
        ({"rule": [3]}, "rule[1]"),
        ({"rule": [{}]}, "rule[1].kind"),
        ({"rule": [{"kind": "melt"}]}, "rule[1].kind"),
        ({"rule": [{"kind": "drop", "pmm": 1}]}, "rule[1].'pmm'"),
        ({"rule": [{"kind": "drop", "ppm": 1_000_001}]}, "rule[1].ppm"),
        ({"rule": [{"kind": "drop", "ppm": 0.5}]}, "rule[1].ppm"),
        ({"rule": [{"kind": "drop", "ppm": True}]}, "rule[1].ppm"),
        ({"rule": [{"kind": "drop", "layer": 3}]}, "rule[1].layer"),
        ({"rule": [{"kind": "delay", "min_ns": 5, "max_ns": 4}]}, "rule[1].max_ns"),
        ({"rule": [{"kind": "fail", "code": "OK"}]}, "rule[1].code"),
        ({"rule": [{"kind": "fail", "reason": "lower"}]}, "rule[1].reason"),
        ({"rule": [{"kind": "fail", "after": 1}]}, "rule[1].after"),
    ],
)
def test_a_wrong_plan_names_the_place(table: dict[str, Any], field: str) -> None:
    """Every wrong key or value is a violation on its path."""
    with pytest.raises(InvalidArgument) as caught:
        FaultPlan.parse(table, Rng(1))
    assert caught.value.reason == "FAULT_PLAN_INVALID"
    assert field in [violation.field for violation in caught.value.violations]
