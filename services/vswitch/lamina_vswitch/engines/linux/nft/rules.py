"""Policies as rules of nf_tables: a pure translation, which the golden tests show.

Everything lies in one table of the family `netdev`, which sees frames where they enter at a device, before the bridge
learns from them. A port has a chain over its legs, where its frames are without tags, named counters for its drops,
named buckets for storms, and sets for addresses that the kernel notes by itself. The order of the rules is that of the
switch's pipeline.

While somebody watches a port, a device takes copies of its frames: of those that are dropped with the reason in their
mark, of the others behind all rules.

Source: nft(8), sections on the netdev family, stateful objects, and sets (`dynamic`, `timeout`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security, StormControl
from lamina_vswitch.engines.linux.bpf.trunk import REASON_AT

TABLE = "netdev lamina"
_BEHIND = 10


@dataclass(frozen=True, slots=True)
class FilteredPort:
    """A port as rules see it. `devices`: its legs, in order; without any there are no rules.

    Where the policy has no address of the device, the kernel takes the first one that comes. `ageing_seconds` is the
    switch's. `watch` is the device that takes copies; empty: none.
    """

    slot: int
    devices: tuple[str, ...]
    policy: PolicyInForce
    ageing_seconds: int = 300
    watch: str = ""

    @property
    def reasons(self) -> tuple[DropReason, ...]:
        """The reasons that the rules of this port may drop for, in the order of their numbers."""
        if not self.devices:
            return ()
        security = self.policy.security
        asked = {
            DropReason.FORGED_TRANSMIT: security.reject_forged_transmits,
            DropReason.MAC_LIMIT: security.mac_limit > 0,
            DropReason.DHCP_GUARD: security.dhcp_guard,
            DropReason.ROUTER_GUARD: security.router_guard,
            DropReason.STORM: _limits_storms(self.policy.storm_control),
        }
        return tuple(sorted(reason for reason, wanted in asked.items() if wanted))


class _Object(NamedTuple):
    """What rules keep in the kernel between frames: `kind` and definition as nft has them."""

    kind: str
    name: str
    what: str


def counter_name(slot: int, reason: DropReason) -> str:
    """Return the name of the counter of a port's drops for a reason."""
    return f"p{slot}_{reason.name.lower()}"


def made(port: FilteredPort, there: Sequence[_Object] = ()) -> list[str]:
    """Return the commands that make the chains of a port, none when its policy asks nobody to look at frames.

    `there` are objects that need not be made.
    """
    commands: list[str] = []
    if port.reasons:
        commands += [f"add counter {TABLE} {counter_name(port.slot, reason)}" for reason in port.reasons]
        commands += [f"add {each.kind} {TABLE} {each.name} {{ {each.what} }}" for each in _objects(port, there)]
        commands += [_hooked(port, _chain(port.slot), 0), *_rules(port)]
    return commands + _watched(port)


def unmade(port: FilteredPort, kept: Sequence[_Object] = ()) -> list[str]:
    """Return the commands that take away what `made` made of the same port, but for the objects that are `kept`.

    Counters stay, for they go on counting.
    """
    commands = _unwatched(port)
    if port.reasons:
        commands += _chain_away(_chain(port.slot))
        commands += [f"delete {each.kind} {TABLE} {each.name}" for each in _objects(port, kept)]
    return commands


def changed(old: FilteredPort | None, new: FilteredPort) -> list[str]:
    """Return the commands that make the rules of a port others.

    At the same devices, whoever begins or ceases to watch it, or changes something else of its policy, has no address
    forgotten, and no bucket of its storm control filled.
    """
    if old is None:
        return made(new)
    if replace(old, watch=new.watch) != new:
        alike = old.devices == new.devices and old.reasons and new.reasons
        kept = [each for each in _objects(old) if each in _objects(new)] if alike else []
        return unmade(old, kept) + made(new, kept)
    again = [f"flush chain {TABLE} {_chain(new.slot)}", *_rules(new)] if new.reasons else []
    return _unwatched(old) + again + _watched(new)


def forgotten(slot: int, reasons: Iterable[DropReason]) -> list[str]:
    """Return the commands that take away the counters of a port that is gone."""
    return [f"delete counter {TABLE} {counter_name(slot, reason)}" for reason in reasons]


def _chain(slot: int) -> str:
    return f"p{slot}_enters"


def _copies(slot: int) -> str:
    return f"p{slot}_seen"


def _hooked(port: FilteredPort, chain: str, priority: int) -> str:
    devices = ", ".join(f'"{device}"' for device in port.devices)
    hook = f"type filter hook ingress devices = {{ {devices} }} priority {priority}; policy accept;"
    return f"add chain {TABLE} {chain} {{ {hook} }}"


def _rules(port: FilteredPort) -> list[str]:
    return [f"add rule {TABLE} {_chain(port.slot)} {rule}" for rule in _entering(port)]


def _watched(port: FilteredPort) -> list[str]:
    """Return the commands that have what passes copied, behind all rules."""
    if not port.watch or not port.devices:
        return []
    return [
        _hooked(port, _copies(port.slot), _BEHIND),
        f'add rule {TABLE} {_copies(port.slot)} dup to "{port.watch}"',
    ]


def _unwatched(port: FilteredPort) -> list[str]:
    if not port.watch or not port.devices:
        return []
    return _chain_away(_copies(port.slot))


def _chain_away(chain: str) -> list[str]:
    """Return what takes a chain away: older kernels have done so when the last device of it went."""
    return [f"{verb} chain {TABLE} {chain}" for verb in ("add", "flush", "delete")]


def _objects(port: FilteredPort, without: Sequence[_Object] = ()) -> list[_Object]:
    """Return what the rules of a port keep in the kernel: the first address, those that count for the limit, and the
    buckets of its storm control, which fill at the rate and hold what comes in a second, as the model's."""
    security, storms, slot = port.policy.security, port.policy.storm_control, port.slot
    found: list[_Object] = []
    if security.reject_forged_transmits and not port.policy.mac:
        found.append(_Object("set", f"p{slot}_first", "type ether_addr; size 1; flags dynamic;"))
    if security.mac_limit:
        aged = f"flags dynamic,timeout; timeout {port.ageing_seconds}s; gc-interval 1s;"
        what = f"type iface_index . ether_addr; size {security.mac_limit}; {aged}"
        found.append(_Object("set", f"p{slot}_macs", what))
    rates = {"broadcast": storms.broadcast, "multicast": storms.multicast} if storms is not None else {}
    for name, frames in rates.items():
        if frames:
            found.append(_Object("limit", f"p{slot}_{name}", f"rate over {frames}/second burst {frames} packets"))
    return [each for each in found if each not in without]


def _entering(port: FilteredPort) -> list[str]:
    """Return the rules at the way in: security, storms, and last the limit of addresses, as they are learned.

    A frame whose source no station can have is left to the bridge, which drops it.
    """
    policy = port.policy
    rules = _secure(port, policy.security)
    if policy.storm_control is not None:
        rules += _calm(port, policy.storm_control)
    if policy.security.mac_limit:
        rules += [
            f"update @p{port.slot}_macs {{ iif . ether saddr }} accept",
            _drop(port, DropReason.MAC_LIMIT),
        ]
    return ["ether saddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 accept", *rules]


def _secure(port: FilteredPort, security: Security) -> list[str]:
    slot = port.slot
    rules: list[str] = []
    if security.reject_forged_transmits and port.policy.mac:
        rules.append(f"ether saddr != {port.policy.mac.hex(':')} {_drop(port, DropReason.FORGED_TRANSMIT)}")
    elif security.reject_forged_transmits:
        # the first address finds room; any other does not, and the first rule ends before its mark is set
        rules.append("meta mark set meta mark and 0x7fffffff")
        rules.append(f"add @p{slot}_first {{ ether saddr }} meta mark set meta mark or 0x80000000")
        rules.append(f"meta mark and 0x80000000 == 0 {_drop(port, DropReason.FORGED_TRANSMIT)}")
        rules.append("meta mark set meta mark and 0x7fffffff")
    if security.dhcp_guard:
        drop = _drop(port, DropReason.DHCP_GUARD)
        rules.append(f"meta protocol ip udp sport 67 udp dport 68 {drop}")
        rules.append(f"meta protocol ip6 udp sport 547 udp dport 546 {drop}")
    if security.router_guard:
        rules.append(f"icmpv6 type nd-router-advert {_drop(port, DropReason.ROUTER_GUARD)}")
    return rules


def _limits_storms(control: StormControl | None) -> bool:
    return control is not None and bool(control.broadcast or control.multicast)


def _calm(port: FilteredPort, control: StormControl) -> list[str]:
    """Return what takes from the bucket of each class."""
    drop = _drop(port, DropReason.STORM)
    rules: list[str] = []
    if control.broadcast:
        rules.append(f'ether daddr ff:ff:ff:ff:ff:ff limit name "p{port.slot}_broadcast" {drop}')
    if control.multicast:
        group = "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 ether daddr != ff:ff:ff:ff:ff:ff"
        forwarded = "ether daddr & ff:ff:ff:ff:ff:f0 != 01:80:c2:00:00:00"
        rules.append(f'{group} {forwarded} limit name "p{port.slot}_multicast" {drop}')
    return rules


def _drop(port: FilteredPort, reason: DropReason) -> str:
    copied = f'meta mark set meta mark or {reason << REASON_AT:#x} dup to "{port.watch}" ' if port.watch else ""
    return f'counter name "{counter_name(port.slot, reason)}" {copied}drop'
