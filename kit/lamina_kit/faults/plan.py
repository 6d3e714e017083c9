"""Plans of RPC faults: which calls between layers are late, lost, made twice, or fail. Pure.

    seed = 7

    [[rule]]                       # one in a hundred calls that the runtime makes to the MMU is lost
    layer = "mmu"
    caller = "container-runtime"
    method = "Spaces/*"
    kind = "drop"
    ppm = 10_000

A plan decides for each call, in the order of the calls, from the seed alone: the same calls in the same order have the
same faults. Channels carry the decisions out (`faults/channel.py`). ADR 0010.
"""

from __future__ import annotations

import dataclasses
import enum
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamina_kit.checks import Checks, shown
from lamina_kit.errors import CLASSES, InvalidArgument
from lamina_kit.rng import Rng

MILLION = 1_000_000
MAX_RULES = 1000
MAX_NS = 1 << 62


class RpcFault(enum.Enum):
    """What may befall a call.

    DELAY: it begins later. DROP: its request is lost; a unary caller sees its deadline, a stream breaks as UNAVAILABLE.
    DUPLICATE: the handler runs twice and the second answer is dropped (one request, one response). FAIL: it ends with a
    code, before it was carried out or after, when only the answer is lost.
    """

    DELAY = "delay"
    DROP = "drop"
    DUPLICATE = "duplicate"
    FAIL = "fail"


@dataclass(frozen=True)
class Rule:
    """Which calls, and what befalls them. `layer`, `method` and `caller` are globs.

    `method` is matched with `Spaces/Fault` and with `/lamina.mmu.v1.Spaces/Fault`. `ppm`: probability in parts per
    million. The rule looks at the `first_call`th to the `last_call`th call that matches (from 1; 0: no end), within
    `after_ns` to `until_ns` of the stack's time (0: no end). `min_ns` to `max_ns`: how late a call begins or its
    duplicate follows; for a stream that is dropped or fails after, how long it lives. `after` (of `fail`): the call is
    carried out first. `reason` empty: as when a connection breaks, without Lamina's details.
    """

    kind: RpcFault
    layer: str = "*"
    method: str = "*"
    caller: str = "*"
    ppm: int = MILLION
    first_call: int = 1
    last_call: int = 0
    after_ns: int = 0
    until_ns: int = 0
    min_ns: int = 0
    max_ns: int = 0
    after: bool = False
    code: str = "UNAVAILABLE"
    reason: str = ""

    def matches(self, caller: str, layer: str, method: str) -> bool:
        """Returns whether the rule looks at calls of `method` (`/package.Service/Method`)."""
        service, _, name = method.removeprefix("/").partition("/")
        short = f"{service.rpartition('.')[2]}/{name}"
        return (
            fnmatch.fnmatchcase(layer, self.layer)
            and fnmatch.fnmatchcase(caller, self.caller)
            and (fnmatch.fnmatchcase(short, self.method) or fnmatch.fnmatchcase(method, self.method))
        )


@dataclass(frozen=True)
class Verdict:
    """What befalls one call: first a delay, then `kind` (None: nothing but the delay). `rule` counts from 1."""

    kind: RpcFault | None
    rule: int
    delay_ns: int = 0
    later_ns: int = 0
    after: bool = False
    code: str = "UNAVAILABLE"
    reason: str = ""


class FaultPlan:
    """Rules with a seed, and how many calls each has seen. One plan serves all channels of a stack."""

    def __init__(self, rules: tuple[Rule, ...], rng: Rng) -> None:
        self.rules = rules
        self.active = True
        self.injected = 0
        self._chance = [rng.child(f"rule/{number}") for number in range(len(rules))]
        self._seen = [0] * len(rules)
        self._matching: dict[tuple[str, str, str], tuple[int, ...]] = {}

    @staticmethod
    def parse(table: Mapping[str, Any], rng: Rng) -> FaultPlan:
        """Returns the plan in a table of TOML; `seed` in it stands above `rng`.

        Raises `InvalidArgument` `FAULT_PLAN_INVALID` with every violation.
        """
        rules: list[Rule] = []
        with Checks("FAULT_PLAN_INVALID") as check:
            for key in table:
                check.that(key in ("seed", "rule"), key, "is not seed or rule")
            seed = table.get("seed", 0)
            check.that(type(seed) is int, "seed", f"is {shown(seed)}, not a whole number")
            listed = table.get("rule", [])
            if check.that(isinstance(listed, list), "rule", "is not a list of tables: write [[rule]]"):
                check.range("rule", len(listed), 0, MAX_RULES)
                for number, entry in enumerate(listed[:MAX_RULES]):
                    rule = _rule(check, f"rule[{number + 1}]", entry)
                    rules += [rule] if rule is not None else []
        return FaultPlan(tuple(rules), Rng(seed) if "seed" in table else rng)

    def end(self) -> None:
        """Lets every later call through; what is on its way meets its fault still."""
        self.active = False

    def concerns(self, caller: str, layer: str) -> bool:
        """Returns whether any rule looks at calls from `caller` to `layer`."""
        return any(fnmatch.fnmatchcase(layer, r.layer) and fnmatch.fnmatchcase(caller, r.caller) for r in self.rules)

    def decide(self, caller: str, layer: str, method: str, now_ns: int) -> Verdict | None:
        """Returns what befalls a call that begins now; None for nothing.

        Delays of several rules add up; of the other kinds the first rule that strikes counts.
        """
        if not self.active:
            return None
        delay = 0
        struck: Verdict | None = None
        first_delay = 0
        for number in self._rules_for(caller, layer, method):
            if struck is not None and self.rules[number].kind is not RpcFault.DELAY:
                continue
            found = self._strike(number, now_ns)
            if found is None:
                continue
            if found.kind is RpcFault.DELAY:
                delay += found.later_ns
                first_delay = first_delay or found.rule
            else:
                struck = found
        if struck is None and not first_delay:
            return None
        self.injected += 1
        if struck is None:
            return Verdict(None, first_delay, delay)
        return dataclasses.replace(struck, delay_ns=delay)

    def _rules_for(self, caller: str, layer: str, method: str) -> tuple[int, ...]:
        key = (caller, layer, method)
        found = self._matching.get(key)
        if found is None:
            found = tuple(number for number, rule in enumerate(self.rules) if rule.matches(*key))
            self._matching[key] = found
        return found

    def _strike(self, number: int, now_ns: int) -> Verdict | None:
        """Returns what one rule does to a call that it matches; counts the call."""
        rule, chance = self.rules[number], self._chance[number]
        if now_ns < rule.after_ns or (rule.until_ns and now_ns >= rule.until_ns):
            return None
        self._seen[number] += 1
        seen = self._seen[number]
        if seen < rule.first_call or (rule.last_call and seen > rule.last_call):
            return None
        if rule.ppm < MILLION and chance.randrange(MILLION) >= rule.ppm:
            return None
        later = chance.randint(rule.min_ns, rule.max_ns)
        return Verdict(rule.kind, number + 1, 0, later, rule.after, rule.code, rule.reason)


_TEXTS = ("layer", "method", "caller", "code", "reason")
_NUMBERS = ("ppm", "first_call", "last_call", "after_ns", "until_ns", "min_ns", "max_ns")
_CODES = tuple(error.code for error in CLASSES)


def _rule(check: Checks, where: str, entry: Any) -> Rule | None:
    """Returns a rule; None with the violations noted when it is wrong."""
    before = len(check.violations)
    if not check.that(isinstance(entry, Mapping), where, "is not a table"):
        return None
    kinds = [kind.value for kind in RpcFault]
    check.one_of(f"{where}.kind", entry.get("kind"), kinds)
    for key in entry:
        check.that(key in ("kind", "after", *_TEXTS, *_NUMBERS), f"{where}.{shown(key)}", "is unknown")
    for key in _TEXTS:
        check.that(isinstance(entry.get(key, ""), str), f"{where}.{key}", "is not a text")
    for key in _NUMBERS:
        if check.that(type(entry.get(key, 0)) is int, f"{where}.{key}", "is not a whole number"):
            check.range(f"{where}.{key}", entry.get(key, 0), 0, MILLION if key == "ppm" else MAX_NS)
    check.that(type(entry.get("after", False)) is bool, f"{where}.after", "is not true or false")
    if len(check.violations) > before:
        return None
    rule = Rule(**{**entry, "kind": RpcFault(entry["kind"])})
    rule = dataclasses.replace(rule, max_ns=max(rule.min_ns, rule.max_ns) if "max_ns" not in entry else rule.max_ns)
    check.that(rule.min_ns <= rule.max_ns, f"{where}.max_ns", "is below min_ns")
    check.one_of(f"{where}.code", rule.code, _CODES)
    if rule.reason:
        try:
            InvalidArgument("", reason=rule.reason)
        except ValueError:
            check.that(False, f"{where}.reason", "is not UPPER_SNAKE")
    return rule if len(check.violations) == before else None
