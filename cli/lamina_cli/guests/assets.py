"""Files that travel with the command: guest sources and examples."""

from __future__ import annotations

from pathlib import Path

from lamina_kit.errors import NotFound

PLACES = (Path(__file__).resolve().parents[3], Path(__file__).resolve().parents[1] / "data")
"""The checkout, and the folder of the installed package."""


def asset(name: str) -> Path:
    """Returns the path of a file or folder such as `examples/hello.yaml`.

    Raises:
        NotFound: `ASSET_MISSING`, it is neither in the checkout nor in the installed package.
    """
    for place in PLACES:
        if (place / name).exists():
            return place / name
    raise NotFound(
        f"{name} is neither in the checkout nor in the installed package",
        reason="ASSET_MISSING",
        next_step="install Lamina again, or run from a checkout",
    )
