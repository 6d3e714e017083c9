"""Names of switches, their ports and other parts, and frames, from what people type to `lamina vswitch`."""

from __future__ import annotations

from lamina_cli.client import Client
from lamina_cli.resource_names import full_name


async def switch_name(client: Client, switch: str) -> str:
    """Returns the name of a switch of which the last part is given."""
    return await full_name(client, "switches", switch, "vswitch")


async def port_name(client: Client, text: str) -> str:
    """Returns the name of a port given as SWITCH/PORT; a full name stays as it is."""
    return await part_name(client, "ports", text)


async def part_name(client: Client, collection: str, text: str) -> str:
    """Returns the name of a part of a switch given as SWITCH/NAME; a full name stays as it is."""
    if text.count("/") != 1:
        return text
    switch, _, name = text.partition("/")
    return f"{await switch_name(client, switch)}/{collection}/{name}"


async def in_switch(client: Client, switch: str, collection: str, text: str) -> str:
    """Returns the name of a part of `switch`, a full name, given as NAME, as SWITCH/NAME or in full."""
    return f"{switch}/{collection}/{text}" if "/" not in text else await part_name(client, collection, text)


def frame_bytes(text: str) -> bytes:
    """Returns a frame given in hexadecimal."""
    from lamina_kit.errors import InvalidArgument, Violation

    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise InvalidArgument(
            "the frame is not hexadecimal",
            reason="FRAME_MALFORMED",
            violations=[Violation("frame", str(error))],
            next_step="give the bytes as pairs of hexadecimal digits, for example ffffffffffff0200000000010806",
        ) from error
