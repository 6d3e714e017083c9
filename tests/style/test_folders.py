"""How much lies in a folder of source, and that the C sources of guests include one another in one direction."""

from __future__ import annotations

from pathlib import Path

from lamina_tools.style import folders
from lamina_tools.style.source import Source
from lamina_tools.style.verdict import expect_none
from lamina_tools.tree import LAYERS, ROOT, files

AREAS = ("kit", "cli", "tools", "bench", "guests", *(str(layer.folder) for layer in LAYERS))
"""Folders of source; tests are sorted by what they test, and examples are single files."""

AN_ENGINE = "an engine is a package in every layer, as an engine of somebody else is"
THE_ENGINES = "engines stand beside their interface in every layer; this layer has one so far"
SMALL = {
    "services/hardware/lamina_hardware/engines/linux": AN_ENGINE,
    "services/hardware/lamina_hardware/engines/model": AN_ENGINE,
    "services/container-runtime/lamina_container_runtime/engines": THE_ENGINES,
    "services/hypervisor/lamina_hypervisor/domain/boot": "how a guest begins is apart from what it is while it runs",
    "services/orchestrator/lamina_orchestrator/engines": THE_ENGINES,
}
"""Folders with fewer than three modules or subfolders, and why they are folders all the same."""


def sources() -> list[Path]:
    """Returns the written files of the folders of source."""
    return [path for area in AREAS for path in files(ROOT, area)]


def test_a_folder_holds_what_one_look_takes_in() -> None:
    """A folder has at most 24 modules, and fewer than three parts only for a reason that it still needs."""
    expect_none(folders.sizes(folders.folders(sources()), SMALL), "A folder is a noun, its modules what it is made of")


def test_includes_of_guests_run_one_way() -> None:
    """No two C files of the guests know each other, not even through others."""
    written = [source for path in sources() if path.suffix in folders.C and (source := Source.read(ROOT, path))]
    assert len(written) > 10
    expect_none(folders.include_circle(written))
