"""Names of switches, their ports and other parts, from what people type to `lamina vswitch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina_cli.client.client import Client
from lamina_cli.client.resource_names import full_name
from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument

if TYPE_CHECKING:
    from lamina.vswitch.v1.uplinks_pb2 import VlanTrunk


async def switch_name(client: Client, switch: str) -> str:
    """Returns the name of a switch of which the last part is given."""
    return await full_name(client, "switches", switch, "vswitch")


async def port_name(client: Client, text: str) -> str:
    """Returns the name of a port given as SWITCH/PORT; a full name stays as it is."""
    return await part_name(client, "ports", text)


async def part_name(client: Client, collection: str, text: str) -> str:
    """Returns the name of a part of a switch given as SWITCH/NAME; a full name stays as it is.

    Raises:
        InvalidArgument: `NAME_MALFORMED`, the text names no switch.
    """
    if text.count("/") > 1:
        return text
    switch, slash, name = text.partition("/")
    if not slash:
        raise _no_switch(text)
    return f"{await switch_name(client, switch)}/{collection}/{name}"


async def in_switch(client: Client, switch: str, collection: str, text: str) -> str:
    """Returns the name of a part of `switch`, a full name, given as NAME, as SWITCH/NAME or in full."""
    return f"{switch}/{collection}/{text}" if "/" not in text else await part_name(client, collection, text)


async def name_in(client: Client, collection: str, parent: str, text: str) -> str:
    """Returns the name of a part given as SWITCH NAME, as SWITCH/NAME alone (then `text` is empty), or in full."""
    if not text:
        return await part_name(client, collection, parent)
    return await in_switch(client, await switch_name(client, parent), collection, text)


async def new_part(client: Client, parent: str, text: str) -> tuple[str, str]:
    """Returns the switch's name and the id of a part to be made, given as SWITCH NAME, as SWITCH/NAME or in full.

    Raises:
        InvalidArgument: `NAME_MALFORMED`, the text names no switch or no part of it.
    """
    if text:
        return await switch_name(client, parent), text
    switch, slash, name = parent.rpartition("/")
    if not slash or not name or switch.endswith("/switches"):
        raise _no_switch(parent) if not slash else _no_part(parent)
    if "/" in switch:
        switch = switch.rpartition("/")[0]  # in full: without the word for such parts
    return await switch_name(client, switch), name


def vlan_ranges(trunk: VlanTrunk) -> str:
    """Returns the VLANs of a trunk as `10-20,30`; empty for all."""
    ranges = ((each.first_vlan_id, each.last_vlan_id) for each in trunk.ranges)
    return ",".join(str(first) if first == final else f"{first}-{final}" for first, final in ranges)


def _no_switch(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"{shown(text)} names no switch",
        reason="NAME_MALFORMED",
        next_step="give SWITCH/NAME, for example lan/alice; `lamina vswitch switches` lists switches",
    )


def _no_part(text: str) -> InvalidArgument:
    return InvalidArgument(
        f"{shown(text)} is a switch, and nothing in it is named",
        reason="NAME_MALFORMED",
        next_step="give SWITCH/NAME, for example lan/alice",
    )
