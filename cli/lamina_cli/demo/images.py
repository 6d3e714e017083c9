"""Chapter 2: C programs become static ELF files, and those become OCI images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass

from lamina_cli.client.client import Client
from lamina_cli.demo.story import Story

PROGRAMS = ("hello", "counter")
REFERENCE = "lamina.local/{name}:latest"
STATIC_X86_64 = b"\x7fELF\x02\x01\x01"
MACHINE_X86_64 = 62


@dataclass(frozen=True)
class Built:
    """A program and the image that it travels in."""

    name: str
    elf: bytes
    layout: bytes

    @property
    def reference(self) -> str:
        """The image's name."""
        return REFERENCE.format(name=self.name)


def build(name: str) -> Built:
    """Compiles `guests/NAME.c` and packs it."""
    from lamina_cli.guests.images import one_program
    from lamina_cli.guests.programs import compile_program

    elf = compile_program(name)
    reference = REFERENCE.format(name=name)
    return Built(name, elf, one_program(name, elf, reference))


async def images(story: Story, client: Client) -> dict[str, Built]:
    """Builds and imports the programs. Returns them by name."""
    from lamina.container_runtime.v1 import container_runtime_pb2_grpc as services

    from lamina_cli.guests.images import HEADERS, row, send

    story.chapter("C programs become static ELF files, and those become OCI images")
    built = {name: build(name) for name in PROGRAMS}  # inline: a thread would end at a moment of its own
    for item in built.values():
        machine = int.from_bytes(item.elf[18:20], "little")
        story.check(
            f"guests/{item.name}.c is a static x86-64 ELF of {len(item.elf):,} bytes",
            item.elf.startswith(STATIC_X86_64) and machine == MACHINE_X86_64,
            item.elf[:20].hex(" "),
        )
    imported = []
    for at in client.everywhere():
        stub = at.stub("container-runtime", services.ImagesStub)
        for item in built.values():
            imported.append((await send(stub, io.BytesIO(item.layout), item.reference)).images[0])
    story.table(HEADERS, (row(image) for image in imported))
    for item, image in zip(built.values(), imported, strict=False):
        wrong = wrong_digests(item.layout)
        story.check(f"every blob of {item.reference} has the digest of its name", not wrong, ", ".join(wrong))
        story.equal("the runtime holds that image", image.digest, config_digest(item.layout))
    return built


def blobs(layout: bytes) -> dict[str, bytes]:
    """Returns the blobs of an OCI layout by their digests."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(layout)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None and member.name.startswith("blobs/"):
                found[member.name.removeprefix("blobs/").replace("/", ":")] = file.read()
            elif file is not None and member.name == "index.json":
                found["index"] = file.read()
    return found


def wrong_digests(layout: bytes) -> list[str]:
    """Returns the digests that are not those of their blobs."""
    return [
        digest
        for digest, data in blobs(layout).items()
        if digest != "index" and digest != f"sha256:{hashlib.sha256(data).hexdigest()}"
    ]


def config_digest(layout: bytes) -> str:
    """Returns the digest of the configuration, by which runtimes know an image: index → manifest → configuration."""
    found = blobs(layout)
    manifest = json.loads(found[json.loads(found["index"])["manifests"][0]["digest"]])
    return str(manifest["config"]["digest"])
