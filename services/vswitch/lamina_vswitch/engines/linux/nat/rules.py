"""A network's translation as one table of nf_tables: a pure function from what is asked to what `nft` reads.

Masquerade where packets of the network leave by another device, destination NAT for forwarded ports, limits of entries,
and a wall: what the network's router would not translate does not get in or out.

    from D  ->  raw: never to or from 127.0.0.0/8  ->  dnat (forwards)  ->  forward or input: state, reach, limits
                                                                        ->  snat: another device, or back in (hairpin)
    to D    ->  dnat (forwards; for 127.0.0.0/8 only of what the machine itself sends)
                                                                        ->  forward: tracked, or forwarded; no others

Source: nft(8); docs/adr/0051-translation-by-the-kernel.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_net.packets.address import Subnet, format_address
from lamina_vswitch.domain.frames.drop_reasons import DropReason
from lamina_vswitch.domain.nat.flows.forwards import ForwardDefinition
from lamina_vswitch.domain.nat.packets.packet import TCP, UDP
from lamina_vswitch.domain.nat.packets.tracking import State, timeout_seconds

DEVICE_PREFIX = "lnat-"
TABLE_PREFIX = "lamina-nat-"
REASONS = (
    DropReason.NAT_TABLE_FULL,
    DropReason.NAT_ADDRESS_LIMIT,
    DropReason.NAT_NO_ENTRY,
    DropReason.NAT_STATE,
    DropReason.NAT_DESTINATION_FORBIDDEN,
)
"""Why packets end in the table; each has a counter."""
_NEVER = "127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3, 0.0.0.0/8"
_LINK_LOCAL = Subnet(0xA9FE0000, 16)
_LOOPBACK = Subnet(0x7F000000, 8)
_NAMES = {TCP: "tcp", UDP: "udp"}
_LOWEST_PORT = 1024


@dataclass(frozen=True, slots=True)
class NatWanted:
    """What a network asks of the kernel. `alone`: nothing but Lamina's devices may forward on this machine."""

    device: str
    gateway: int
    inside: tuple[Subnet, ...]
    first_port: int
    last_port: int
    entry_limit: int
    per_address: int
    allowed: tuple[Subnet, ...] = ()
    forwards: tuple[ForwardDefinition, ...] = ()
    alone: bool = False


def table_of(device: str) -> str:
    """Return the name of the table of a device."""
    return TABLE_PREFIX + device.removeprefix(DEVICE_PREFIX)


def flows_counter(port_forward: str) -> str:
    """Return the name of the counter of a forwarded port."""
    return f"flows_{port_forward}"


def drops_counter(reason: DropReason) -> str:
    """Return the name of the counter of a reason."""
    return f"drops_{reason.name.lower()}"


def ruleset(wanted: NatWanted, comment: str, *, recount: bool = False, gone: tuple[str, ...] = ()) -> str:
    """Return a batch that makes the table what it shall be, whatever it was; counters and sets of flows stay.

    `comment` is kept at a table that is new. With `recount` flows are counted for the limits from now on: a set keeps
    the limit with which an element came into it. `gone` are forwarded ports that were there and are not any more.
    """
    table = f"ip {table_of(wanted.device)}"
    parts = (_objects(wanted), _sets(wanted), _filters(wanted), _translations(wanted))
    lines = [f'add table {table} {{ comment "{comment}"; }}', f"flush table {table}"]
    lines += [f"delete counter {table} {flows_counter(each)}" for each in gone]
    if recount:
        lines += [f"flush set {table} {name}" for name in ("per_address", "entries")]
    lines += [f"table {table} {{", *(f"  {line}" for part in parts for line in part), "}"]
    for name, subnets in (("inside_of", wanted.inside), ("allowed", wanted.allowed), ("named", _named(wanted))):
        lines.append(f"flush set {table} {name}")
        if subnets:
            lines.append(f"add element {table} {name} {{ {', '.join(map(str, subnets))} }}")
    return "\n".join(lines) + "\n"


def removal(device: str) -> str:
    """Return a batch that takes the table away."""
    return f"delete table ip {table_of(device)}\n"


def _objects(wanted: NatWanted) -> list[str]:
    seconds = {state: timeout_seconds(TCP, state) for state in State}
    opening, closing, closed = seconds[State.OPENING], seconds[State.CLOSING], seconds[State.CLOSED]
    tcp = f"syn_sent: {opening}, syn_recv: {opening}, established: {seconds[State.ESTABLISHED]}, "
    tcp += f"fin_wait: {closing}, close_wait: {closing}, last_ack: {closed}, time_wait: {closed}, close: {closed}"
    udp = f"unreplied: {timeout_seconds(UDP, State.UNREPLIED)}, replied: {timeout_seconds(UDP, State.REPLIED)}"
    counters = [drops_counter(reason) for reason in REASONS]
    counters += [flows_counter(each.port_forward) for each in wanted.forwards]
    return [
        *(f"counter {name} {{ }}" for name in counters),
        f"ct timeout times_tcp {{ protocol tcp; l3proto ip; policy = {{ {tcp} }}; }}",
        f"ct timeout times_udp {{ protocol udp; l3proto ip; policy = {{ {udp} }}; }}",
    ]


def _sets(wanted: NatWanted) -> list[str]:
    subnets = "{ type ipv4_addr; flags interval; auto-merge; }"
    return [
        *(f"set {name} {subnets}" for name in ("inside_of", "allowed", "named")),
        "set per_address { type ipv4_addr; flags dynamic; size 65536; }",
        "set entries { typeof meta protocol; flags dynamic; size 4; }",
    ]


def _filters(wanted: NatWanted) -> list[str]:
    own, other = f'iifname "{wanted.device}"', f'oifname "{wanted.device}"'
    gateway = format_address(wanted.gateway)
    forwarding = [
        f"{own} ct state invalid {_drop(DropReason.NAT_STATE)}",
        f"{own} ct state new jump leaving",
        f"{other} ct state invalid {_drop(DropReason.NAT_STATE)}",
        f"{other} ct state new ct status & dnat != dnat {_drop(DropReason.NAT_NO_ENTRY)}",
        f'iifname != "{wanted.device}" {other} ct state new jump entering',
    ]
    if wanted.alone:
        forwarding.append(f'iifname != "{DEVICE_PREFIX}*" oifname != "{DEVICE_PREFIX}*" drop')
    return [
        *_chain("raw_in", "type filter hook prerouting priority raw", [
            f"{own} ip daddr {_LOOPBACK} drop", f"{own} ip saddr {_LOOPBACK} drop",
        ]),
        *_chain("reach", "", _reach(wanted)),
        *_chain("limits", "", [
            f"add @per_address {{ ip saddr ct count over {wanted.per_address} }} {_drop(DropReason.NAT_ADDRESS_LIMIT)}",
            f"add @entries {{ meta protocol ct count over {wanted.entry_limit} }} {_drop(DropReason.NAT_TABLE_FULL)}",
        ]),
        *_chain("timed", "", [
            'ip protocol tcp ct timeout set "times_tcp"', 'ip protocol udp ct timeout set "times_udp"',
        ]),
        *_chain("leaving", "", [
            f"tcp flags & (fin | syn | rst | ack) != syn {_drop(DropReason.NAT_STATE)}",
            f"icmp type != echo-request {_drop(DropReason.NAT_STATE)}",
            "jump reach", "jump limits", "jump timed",
        ]),
        *_chain("entering", "", [
            f"add @per_address {{ ip daddr ct count over {wanted.per_address} }} {_drop(DropReason.NAT_ADDRESS_LIMIT)}",
            f"add @entries {{ meta protocol ct count over {wanted.entry_limit} }} {_drop(DropReason.NAT_TABLE_FULL)}",
            "jump timed",
        ]),
        *_chain("passing", "type filter hook forward priority filter", forwarding),
        *_chain("own", "type filter hook input priority filter", [
            f"{own} ct state invalid {_drop(DropReason.NAT_STATE)}",
            f"{own} ct state new ip daddr {gateway} ip protocol tcp reject with tcp reset",
            f"{own} ct state new ip daddr {gateway} reject with icmp port-unreachable",
            f"{own} ct state new jump leaving",
        ]),
        *_chain("from_machine", "type filter hook output priority filter", [
            f"{other} ct state new {_drop(DropReason.NAT_NO_ENTRY)}", f"{other} icmp type redirect drop",
        ]),
    ]  # fmt: skip


def _reach(wanted: NatWanted) -> list[str]:
    """Return which destinations a flow may have: those of `domain/nat/sockets/reach.py`, but never 127.0.0.0/8."""
    forbidden = f"counter name {drops_counter(DropReason.NAT_DESTINATION_FORBIDDEN)} reject with icmp admin-prohibited"
    # A forwarded port of the network itself may be reached. Whatever else was rewritten by rules of the machine, as
    # ports of containers are, is judged by what the device named, and does not lead where nothing may.
    rules = ["ct status & dnat == dnat ip daddr @inside_of return"]
    rules += ["ip daddr @named return", f"ip daddr {{ {_NEVER} }} {forbidden}"]
    if wanted.allowed:
        rules.append(f"ct original ip daddr != @allowed {forbidden}")
    return rules


def _named(wanted: NatWanted) -> tuple[Subnet, ...]:
    return tuple(each for each in wanted.allowed if each.network in _LINK_LOCAL and each.length >= _LINK_LOCAL.length)


def _translations(wanted: NatWanted) -> list[str]:
    other = f'oifname "{wanted.device}"'
    first, last = wanted.first_port, wanted.last_port
    # The router balances from the network's own ports towards its devices; what comes from here uses those below.
    low, high = (_LOWEST_PORT, first - 1) if first > _LOWEST_PORT else (first, last)
    with_ports = "meta l4proto { tcp, udp }"
    forwards = [_forward(each) for each in wanted.forwards]
    return [
        *_chain("forwards", "", forwards),
        *_chain("from_elsewhere", "type nat hook prerouting priority dstnat", [
            # Translation comes before the kernel's judgement of addresses: a neighbour could send to 127.0.0.1.
            f"ip daddr != {_LOOPBACK} jump forwards",
        ]),
        *_chain("from_here", "type nat hook output priority dstnat", ["jump forwards"]),
        *_chain("out", "type nat hook postrouting priority srcnat", [
            f"{other} ip saddr {_LOOPBACK} {with_ports} snat to {format_address(wanted.gateway)}:{low}-{high}",
            f"{other} ip saddr @inside_of {with_ports} snat to {format_address(wanted.gateway)}:{low}-{high}",
            f'oifname != "{wanted.device}" ip saddr @inside_of {with_ports} masquerade to :{first}-{last}',
            "ip saddr @inside_of masquerade",
        ]),
    ]  # fmt: skip


def _forward(each: ForwardDefinition) -> str:
    name = _NAMES[each.protocol]
    address, port = each.outside
    there = f"ip daddr {format_address(address)}" if address else "fib daddr type local"
    to = f"{format_address(each.inside[0])}:{each.inside[1]}"
    return f"{there} {name} dport {port} counter name {flows_counter(each.port_forward)} dnat to {to}"


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    head = [f"  {hook}; policy accept;"] if hook else []
    return [f"chain {name} {{", *head, *(f"  {rule}" for rule in rules), "}"]


def _drop(reason: DropReason) -> str:
    return f"counter name {drops_counter(reason)} drop"
