"""Names of this layer's objects, for people and for the event log. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.names import Pattern
from lamina_kit.paging import PAGE_SHIFT

SPACE = Pattern("hosts/{host}/spaces/{space}")
OBJECT = Pattern("hosts/{host}/objects/{object}")
SWAP_AREA = Pattern("hosts/{host}/swapAreas/{swap_area}")
GROUP = Pattern("hosts/{host}/memoryGroups/{group}")


@dataclass(frozen=True)
class Names:
    """Formats the names of one host's objects."""

    host: str

    def space(self, number: int) -> str:
        """Returns `hosts/h1/spaces/s-1`."""
        return f"hosts/{self.host}/spaces/s-{number}"

    def page(self, number: int, vpn: int) -> str:
        """Returns `hosts/h1/spaces/s-1/pages/0x7f0000001000`, by the address of the page."""
        return f"hosts/{self.host}/spaces/s-{number}/pages/{vpn << PAGE_SHIFT:#x}"

    def object(self, number: int) -> str:
        """Returns `hosts/h1/objects/o-1`."""
        return f"hosts/{self.host}/objects/o-{number}"

    def group(self, name: str) -> str:
        """Returns `hosts/h1/memoryGroups/web`."""
        return f"hosts/{self.host}/memoryGroups/{name}"

    def policy(self, name: str) -> str:
        """Returns `hosts/h1/policies/lru`."""
        return f"hosts/{self.host}/policies/{name}"

    def swap_area(self, name: str) -> str:
        """Returns `hosts/h1/swapAreas/swap`."""
        return f"hosts/{self.host}/swapAreas/{name}"

    def frame(self, frame: int) -> str:
        """Returns `hosts/h1/frames/1027`."""
        return f"hosts/{self.host}/frames/{frame}"
