"""Compiles the guest programs, `guests/NAME.c`, to static ELF files."""

from __future__ import annotations

from pathlib import Path

from lamina_cli.guests.assets import asset
from lamina_cli.guests.compiler import compile_static

LIBRARY = ("lib/start.S", "lib/memory.c")


def compile_program(name: str, folder: Path | None = None) -> bytes:
    """Returns the ELF of `NAME.c` in `folder`, `guests/` by default; it may include `lib/lamina.h` from anywhere.

    Raises:
        NotFound: `ASSET_MISSING`, there is no such program.
        InvalidArgument: `GUEST_SOURCE_WRONG`, with what the compiler says.
    """
    sources = folder if folder is not None else asset(f"guests/{name}.c").parent
    library = asset("guests")
    return compile_static(sources, [*(str(library / part) for part in LIBRARY), f"{name}.c"], ["-I", str(library)])
