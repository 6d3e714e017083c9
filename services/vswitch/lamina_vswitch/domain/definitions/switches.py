"""What users define: switches, port groups, ports and static entries. These survive a restart; nothing else does.

Ids are the last parts of resource names. A definition is immutable; a change makes a new one.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.names import Pattern

SWITCH_NAME = Pattern("hosts/{host}/switches/{switch}")
PORT_GROUP_NAME = Pattern("hosts/{host}/switches/{switch}/portGroups/{port_group}")
PORT_NAME = Pattern("hosts/{host}/switches/{switch}/ports/{port}")
MAC_ENTRY_NAME = Pattern("hosts/{host}/switches/{switch}/macEntries/{mac_entry}")

SETTINGS_NAME = Pattern("hosts/{host}/switches/{switch}/settings")
PORT_GROUP_POLICY_NAME = Pattern("hosts/{host}/switches/{switch}/portGroups/{port_group}/policy")
PORT_POLICY_NAME = Pattern("hosts/{host}/switches/{switch}/ports/{port}/policy")

MTU_BYTES = (576, 9000)
AGEING_SECONDS = (1, 1_000_000)
MAC_LIMIT = (1, 1 << 20)
VLAN_ID = (0, 4094)
QUEUE_FRAMES = (1, 1 << 16)
MAX_REQUEST_ID_BYTES = 63

DEFAULT_MTU_BYTES = 1500
DEFAULT_AGEING_SECONDS = 300
DEFAULT_MAC_LIMIT = 8192
DEFAULT_QUEUE_FRAMES = 1024


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that made a definition: its id (empty: none was given) and its content as canonical text."""

    request_id: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True)
class SwitchDefinition:
    """A switch. MTU 576 to 9000 bytes, ageing 1 to 1000000 s, table limit 1 to 1048576 entries."""

    switch: str
    mtu_bytes: int = DEFAULT_MTU_BYTES
    ageing_seconds: int = DEFAULT_AGEING_SECONDS
    mac_limit: int = DEFAULT_MAC_LIMIT


@dataclass(frozen=True, slots=True)
class PortGroupDefinition:
    """A port group. Access VLAN 0 to 4094; 0 is the untagged network."""

    switch: str
    port_group: str
    vlan: int


@dataclass(frozen=True, slots=True)
class PortDefinition:
    """A port: slot in the host's port table from 1, generation of that slot from 1.

    An empty `port_group` is none, so the port is in VLAN 0; an empty `owner` makes the port persistent.
    """

    switch: str
    port: str
    port_group: str
    link_up: bool
    owner: str
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class StaticEntry:
    """A MAC entry that a user made: six bytes of address at a port, in a VLAN."""

    switch: str
    vlan: int
    mac: bytes
    port: str


def mac_entry_id(vlan: int, mac: bytes) -> str:
    """Return the last part of an entry's name: `v100-020000000001`."""
    return f"v{vlan}-{mac.hex()}"


def mac_entry_key(vlan: int, mac: bytes) -> str:
    """Return a text by which entries sort as they are listed: by VLAN, then by address."""
    return f"{vlan:04d}-{mac.hex()}"
