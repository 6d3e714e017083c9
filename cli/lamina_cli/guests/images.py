"""Images of single programs: packed, sent to the container runtime, and shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, BinaryIO

from lamina_cli.guests.oci import Config, File, build_image
from lamina_cli.output import printing

if TYPE_CHECKING:
    from lamina.container_runtime.v1 import container_runtime_pb2
    from lamina.container_runtime.v1.container_runtime_pb2_grpc import ImagesStub

CHUNK = 1 << 20
SHORT_DIGEST = len("sha256:") + 12

HEADERS = ("REFERENCE", "DIGEST", "SIZE", "LAYERS")


def row(image: container_runtime_pb2.Image) -> tuple[object, ...]:
    """Returns the cells of an image."""
    return (
        ", ".join(image.references) or "-",
        image.digest[:SHORT_DIGEST],
        printing.size(image.size_bytes),
        len(image.layers),
    )


def one_program(name: str, program: bytes, reference: str = "", run: str = "") -> bytes:
    """Returns the image of one program, `/NAME`, with an empty `/tmp` beside it, as a tar of an OCI layout.

    The same program gives the same image, unless `run` tells it from others of the program.
    """
    files = [File(name, program, mode=0o755), File("tmp", kind="directory", mode=0o1777)]
    labels = (("lamina.dev/run", run),) if run else ()
    return build_image(files, Config(entrypoint=(f"/{name}",), labels=labels), reference=reference)


async def send(stub: ImagesStub, source: BinaryIO, reference: str) -> container_runtime_pb2.ImportImageResponse:
    """Sends an image to the runtime in pieces. Returns what was imported."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    async def pieces() -> AsyncIterator[container_runtime_pb2.ImportImageRequest]:
        yield pb.ImportImageRequest(start=pb.ImportStart(reference=reference))
        while chunk := source.read(CHUNK):
            yield pb.ImportImageRequest(chunk=chunk)

    return await stub.ImportImage(pieces())
