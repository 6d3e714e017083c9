"""`lamina image`: imports, lists and deletes container images."""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lamina_cli.client.client import Client, command
from lamina_cli.client.pagination import collect
from lamina_cli.guests.images import HEADERS, one_program, row, send
from lamina_cli.input.files import read_bytes, readable
from lamina_cli.output import printing

if TYPE_CHECKING:
    from lamina.container_runtime.v1.container_runtime_pb2_grpc import ImagesStub


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    load = verbs.add_parser("import", help="import an OCI image layout (folder or tar) or a docker-archive")
    load.add_argument("path", help="folder or tar file; `docker save IMAGE` makes one")
    load.add_argument("--name", default="", help="reference, or the name of which a layout brings the tag alone")
    command(load, import_image, lists=True)
    build = verbs.add_parser("build", help="make an image of one program and import it")
    build.add_argument("program", help="a static x86-64 ELF file, or a C source such as guests/hello.c")
    build.add_argument("--name", default="", help="reference (default: lamina.local/PROGRAM:latest)")
    build.add_argument("-w", "--write", metavar="FILE", help="write the image to a file too, as a tar of an OCI layout")
    command(build, build_image, lists=True)
    command(verbs.add_parser("list", help="list images"), images, lists=True)
    delete = verbs.add_parser("delete", help="delete an image or one of its names")
    delete.add_argument("reference", help="reference or digest")
    command(delete, delete_image)


def _images(client: Client) -> ImagesStub:
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc

    return client.stub("container-runtime", container_runtime_pb2_grpc.ImagesStub)


def open_image(path: str) -> BinaryIO:
    """Opens an image for reading as a tar stream; a folder (an unpacked OCI layout) is packed on the way.

    Raises:
        NotFound: `FILE_UNREADABLE`, there is no such file or folder.
    """
    with readable("image", path, "give a folder or tar with an OCI image layout, or the output of `docker save`"):
        if not Path(path).is_dir():
            return Path(path).open("rb")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for file in sorted(Path(path).rglob("*")):
                if file.is_file():
                    tar.add(file, arcname=str(file.relative_to(path)))
    packed.seek(0)
    return packed


async def import_image(client: Client, args: argparse.Namespace) -> None:
    """Imports an image, on every host of the stack unless one is named."""
    for at in client.everywhere():
        with open_image(args.path) as source:
            response = await send(_images(at), source, args.name)
    printing.show(response.images, HEADERS, row, form=args.output)


def program_bytes(path: str) -> bytes:
    """Returns a program: the file as it is, or what a C source compiles to.

    Raises:
        NotFound: `FILE_UNREADABLE`.
        InvalidArgument: `GUEST_SOURCE_WRONG`, with what the compiler says.
    """
    program = read_bytes("program", path, "give a static x86-64 ELF file or a C source")
    if Path(path).suffix != ".c":
        return program
    from lamina_cli.guests.programs import compile_program

    return compile_program(Path(path).stem, Path(path).absolute().parent)


def write_image(path: str | None, layout: bytes) -> None:
    """Writes an image to a file, when one is asked for."""
    if path:
        Path(path).write_bytes(layout)


async def build_image(client: Client, args: argparse.Namespace) -> None:
    """Makes an image of one program and imports it, on every host of the stack unless one is named."""
    name = Path(args.program).name.removesuffix(".c")
    reference = args.name or f"lamina.local/{name}:latest"
    layout = one_program(name, program_bytes(args.program), reference)
    write_image(args.write, layout)
    for at in client.everywhere():
        response = await send(_images(at), io.BytesIO(layout), reference)
    printing.show(response.images, HEADERS, row, form=args.output)


async def images(client: Client, args: argparse.Namespace) -> None:
    """Lists images."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    listed = await collect(_images(client).ListImages, pb.ListImagesRequest(), "images")
    printing.show(listed, HEADERS, row, form=args.output)


async def delete_image(client: Client, args: argparse.Namespace) -> None:
    """Deletes an image."""
    from lamina.container_runtime.v1 import container_runtime_pb2 as pb

    done = await _images(client).DeleteImage(pb.DeleteImageRequest(reference=args.reference))
    for reference in done.removed_references:
        print(f"untagged {reference}")
    if done.image_deleted:
        print(f"deleted the image and {printing.size(done.freed_bytes)}")
