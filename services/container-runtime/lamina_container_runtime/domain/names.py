"""Resource names of this layer."""

from __future__ import annotations

from lamina_kit.errors import NotFound
from lamina_kit.names import Pattern

IMAGE = Pattern("hosts/{host}/images/{image}")
SANDBOX = Pattern("hosts/{host}/sandboxes/{sandbox}")
CONTAINER = Pattern("hosts/{host}/containers/{container}")


class Names:
    """The names of one host's objects."""

    def __init__(self, host: str) -> None:
        self._host = host

    def image(self, image_id: str) -> str:
        """Returns the name of an image."""
        return IMAGE.format(host=self._host, image=image_id)

    def sandbox(self, sandbox_id: str) -> str:
        """Returns the name of a sandbox."""
        return SANDBOX.format(host=self._host, sandbox=sandbox_id)

    def container(self, container_id: str) -> str:
        """Returns the name of a container."""
        return CONTAINER.format(host=self._host, container=container_id)

    def image_id(self, name: str) -> str:
        """Returns the id in the name of an image; `NotFound` `IMAGE_UNKNOWN` for another host's."""
        return self._id(IMAGE, name, "image", "name")

    def sandbox_id(self, name: str, field: str = "name") -> str:
        """Returns the id in the name of a sandbox; `NotFound` `SANDBOX_UNKNOWN` for another host's."""
        return self._id(SANDBOX, name, "sandbox", field)

    def container_id(self, name: str, field: str = "name") -> str:
        """Returns the id in the name of a container; `NotFound` `CONTAINER_UNKNOWN` for another host's."""
        return self._id(CONTAINER, name, "container", field)

    def _id(self, pattern: Pattern, name: str, kind: str, field: str) -> str:
        ids = pattern.parse(name, field)
        if ids["host"] != self._host:
            raise NotFound(
                f"{name} is of the host {ids['host']}; this runtime serves {self._host}.",
                reason=f"{kind.upper()}_UNKNOWN",
                next_step="Ask that host's runtime.",
            )
        return ids[kind]
