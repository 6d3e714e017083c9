"""Who is in a VLAN: ports and port groups whose own it is, and trunks that carry it."""

from __future__ import annotations

from lamina_vswitch.domain.definitions.switches import PortDefinition, PortGroupDefinition
from lamina_vswitch.switches.catalog import Catalog


def carries(catalog: Catalog, port: PortDefinition, vlan: int) -> bool:
    """Tell whether a port is in a VLAN."""
    trunk = catalog.trunks.get((port.switch, port.port_group)) if port.port_group else None
    trunk = catalog.port_trunks.get((port.switch, port.port), trunk)
    return catalog.vlan(port) == vlan if trunk is None else trunk.carries(vlan)


def has_group(catalog: Catalog, switch: str, vlan: int) -> bool:
    """Tell whether any port group of a switch is in a VLAN."""
    return any(group_carries(catalog, group, vlan) for group in catalog.port_groups(switch))


def group_carries(catalog: Catalog, group: PortGroupDefinition, vlan: int) -> bool:
    """Tell whether a port group is in a VLAN."""
    trunk = catalog.trunks.get((group.switch, group.port_group))
    return group.vlan == vlan if trunk is None else trunk.carries(vlan)
