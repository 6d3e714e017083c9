"""Whether the file at a path is the RAM of this host and of this boot."""

from __future__ import annotations

from pathlib import Path

from lamina_kit.bus.file import read_identity
from lamina_kit.errors import FailedPrecondition, LaminaError, NotFound


def check_bus(path: Path, host: str, boot_id: str) -> None:
    """Raises unless the memory bus at `path` is the one that the hardware of `host` made in its boot `boot_id`.

    Raises:
        NotFound: `BUS_MISSING`, nothing is there.
        FailedPrecondition: `BUS_FOREIGN`, it is no bus, or that of another host or boot; `BUS_UNUSABLE`.
        DataLoss: `BUS_TRUNCATED`.
    """
    try:
        found = read_identity(path)
    except NotFound as error:
        raise NotFound(
            f"There is no memory bus at {path}, where host {host} in boot {boot_id} should have its RAM.",
            reason="BUS_MISSING",
            next_step="Give this service the --bus of the host's hardware service, on the same machine or volume.",
            path=path,
            host=host,
            boot_id=boot_id,
        ) from error
    except LaminaError as error:
        error.metadata.update(path=str(path), host=host, boot_id=boot_id)
        raise
    if (found.host, found.boot_id) != (host, boot_id):
        raise FailedPrecondition(
            f"The memory bus {path} is the RAM of host {found.host or 'unknown'} in boot {found.boot_id or 'unknown'}, "
            f"not of host {host} in boot {boot_id}.",
            reason="BUS_FOREIGN",
            next_step="Give this service the --bus of its own host's hardware service.",
            path=path,
            host=host,
            boot_id=boot_id,
        )
