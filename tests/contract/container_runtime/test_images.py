"""Images: importing, naming, listing, deleting, and archives that lie."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import Callable

import grpc
import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from tests.contract.container_runtime.runtime_stack import Stack, compile_test_program, image_of

from lamina_cli.guests.oci import Config, File, build_image, build_layer, digest_of
from lamina_kit.errors import LaminaError
from lamina_kit.rpc.status import rpc_error

MOTD = File("etc/motd", b"welcome\n")


def layout(*files: File, **settings: object) -> bytes:
    """Returns an OCI layout of one layer."""
    return build_image(files or (MOTD,), Config(cmd=("/bin/app",)), **settings)  # type: ignore[arg-type]


def rewrite(archive: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """Returns an archive with the content of its members changed; None leaves one out."""
    entries = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None and (data := change(member.name, file.read())) is not None:
                entries.append(File(member.name, data))
    return build_layer(entries)


def docker_archive(*tags: str, layer: bytes | None = None) -> bytes:
    """Returns what `docker save` made before it made OCI layouts."""
    plain = layer if layer is not None else build_layer([MOTD])
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/app"], "Env": ["A=1"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(plain)]},
        }
    ).encode()
    name = f"{digest_of(config)[7:]}.json"
    manifest = [{"Config": name, "RepoTags": list(tags), "Layers": ["abc/layer.tar"]}]
    index = File("manifest.json", json.dumps(manifest).encode())
    return build_layer([File(name, config), File("abc/layer.tar", plain), index])


async def refused(stack: Stack, archive: bytes, reference: str = "") -> LaminaError:
    """Returns the error with which an import fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.import_image(archive, reference)
    return rpc_error(caught.value)


async def test_layout_is_imported_with_its_settings(stack: Stack) -> None:
    """An OCI layout becomes an image with digest, layers, settings and normalised reference."""
    image = await stack.import_image(layout(reference="hello:1"), "me/other")
    assert list(image.references) == ["docker.io/library/hello:1", "docker.io/me/other:latest"]
    assert list(image.config.cmd) == ["/bin/app"]
    assert image.name == f"hosts/h1/images/{image.digest[7:]}"
    assert image.layers[0] == digest_of(build_layer([MOTD]))
    assert image.size_bytes > len(build_layer([MOTD]))


async def test_importing_twice_changes_nothing(stack: Stack) -> None:
    """The same archive gives the same image, however it is cut into chunks."""
    first = await stack.import_image(layout(), "a")
    (second,) = await stack.import_all(layout(), "a", chunk=1000)
    assert first == second


@pytest.mark.parametrize("form", ["plain", "gzip layers", "gzip archive", "docker", "docker gzip"])
@pytest.mark.inside
async def test_all_forms_give_the_same_files(stack: Stack, form: str) -> None:
    """OCI layouts and docker-archives, plain and gzipped, are read alike."""
    archive = {
        "plain": lambda: layout(),
        "gzip layers": lambda: layout(compress=True),
        "gzip archive": lambda: gzip.compress(layout(), mtime=0),
        "docker": lambda: docker_archive("old:1"),
        "docker gzip": lambda: gzip.compress(docker_archive("old:1"), mtime=0),
    }[form]()
    image = await stack.import_image(archive)
    record = stack.service.runtime.images.resolve(image.digest)
    (tree,) = stack.service.runtime.images.layers(record)
    entry = tree.children["etc"].children["motd"].entry
    assert stack.service.runtime.images.read(entry.digest, 0, 100) == b"welcome\n"


async def test_a_docker_archive_brings_its_tags(stack: Stack) -> None:
    """RepoTags become references."""
    image = await stack.import_image(docker_archive("old:1", "old:2"))
    assert list(image.references) == ["docker.io/library/old:1", "docker.io/library/old:2"]


def tagged(tag: str, name: str = "") -> bytes:
    """Returns an OCI layout as skopeo writes it: `org.opencontainers.image.ref.name` is `tag`, often a tag alone."""
    annotations = {"org.opencontainers.image.ref.name": tag} | ({"io.containerd.image.name": name} if name else {})

    def annotate(member: str, data: bytes) -> bytes:
        if member != "index.json":
            return data
        index = json.loads(data)
        index["manifests"][0]["annotations"] = annotations
        return json.dumps(index).encode()

    return rewrite(layout(), annotate)


@pytest.mark.parametrize(
    ("wanted", "references"),
    [
        ("web", ["docker.io/library/web:1.2"]),
        ("registry.example:5000/me/web", ["registry.example:5000/me/web:1.2"]),
        ("web:1.2", ["docker.io/library/web:1.2"]),
        ("web:stable", ["docker.io/library/web:1.2", "docker.io/library/web:stable"]),
    ],
)
async def test_a_tag_alone_is_one_of_the_name_that_is_given(stack: Stack, wanted: str, references: list[str]) -> None:
    """A layout whose reference is a tag gives that tag to the name of the import; nothing is named like the tag."""
    image = await stack.import_image(tagged("1.2"), wanted)
    assert list(image.references) == references


async def test_a_tag_alone_needs_a_name(stack: Stack) -> None:
    """Without a name a tag alone is refused, with the annotation and the field that would help; no image is left."""
    error = await refused(stack, tagged("1.2"))
    assert (error.reason, [violation.field for violation in error.violations]) == (
        "REFERENCE_MALFORMED",
        ["start.reference"],
    )
    assert "'1.2'" in str(error) and "org.opencontainers.image.ref.name" in str(error)
    assert list((await stack.images.ListImages(pb.ListImagesRequest())).images) == []


@pytest.mark.parametrize(
    ("archive", "references"),
    [
        (tagged("1.2", name="docker.io/me/web:1.2"), ["docker.io/me/web:1.2"]),
        (tagged("me/web"), ["docker.io/me/web:latest"]),
        (tagged("web:1.2"), ["docker.io/library/web:1.2"]),
    ],
)
async def test_a_full_reference_of_a_layout_needs_no_name(stack: Stack, archive: bytes, references: list[str]) -> None:
    """A layout that says its name, by either annotation, is imported under it."""
    assert list((await stack.import_image(archive)).references) == references


async def test_an_index_in_an_index_hands_its_tag_down(stack: Stack) -> None:
    """A tag on an index of platforms is one of the image below it, whatever tag alone that has of its own."""
    members: dict[str, bytes] = {}
    rewrite(tagged("inner"), lambda member, data: members.setdefault(member, data))
    inner = members["index.json"]
    nested = {
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest_of(inner), "size": len(inner),
        "annotations": {"org.opencontainers.image.ref.name": "1.2"},
    }  # fmt: skip
    members[f"blobs/sha256/{digest_of(inner)[7:]}"] = inner
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [nested]}).encode()
    archive = build_layer([File(member, data) for member, data in members.items()])
    assert list((await stack.import_image(archive, "web")).references) == ["docker.io/library/web:1.2"]


async def test_wrong_digests_are_refused_with_both(stack: Stack) -> None:
    """A blob that is not what its name says is refused, naming the digest expected and the digest found."""
    archive = rewrite(layout(), lambda name, data: data.replace(b"welcome", b"WELCOME"))
    error = await refused(stack, archive)
    assert error.reason == "DIGEST_MISMATCH"
    assert error.metadata["expected"] in str(error)
    assert error.metadata["actual"] in str(error)


async def test_a_layer_that_is_not_its_diff_id_is_refused(stack: Stack) -> None:
    """The plain layer must have the digest that the configuration names."""
    other = build_layer([File("x", b"y")])
    archive = rewrite(docker_archive(), lambda name, data: other if name.endswith("layer.tar") else data)
    assert (await refused(stack, archive)).reason == "DIGEST_MISMATCH"


def zstd_layer() -> bytes:
    """Returns a docker-archive whose layer claims to be zstd."""
    return docker_archive(layer=b"\x28\xb5\x2f\xfd" + bytes(100))


def escaping(name: str) -> bytes:
    """Returns a docker-archive with an entry of a hostile name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    return docker_archive(layer=buffer.getvalue())


BAD = {
    "no archive": (b"this is no tar" * 100, "ARCHIVE_MALFORMED"),
    "empty": (b"", "ARCHIVE_MALFORMED"),
    "truncated": (layout()[: len(layout()) // 2], "ARCHIVE_MALFORMED"),
    "nothing known": (build_layer([MOTD]), "ARCHIVE_MALFORMED"),
    "index is no JSON": (
        rewrite(layout(), lambda name, data: b"{" if name == "index.json" else data),
        "ARCHIVE_MALFORMED",
    ),
    "blob missing": (
        rewrite(layout(), lambda name, data: None if b"welcome" in data else data),
        "ARCHIVE_MALFORMED",
    ),
    "another machine": (
        build_image([MOTD], Config(architecture="arm64")),
        "PLATFORM_UNSUPPORTED",
    ),
    "zstd": (zstd_layer(), "COMPRESSION_UNSUPPORTED"),
    "parent": (escaping("../etc/passwd"), "PATH_ESCAPES"),
    "inner parent": (escaping("a/../../b"), "PATH_ESCAPES"),
    "long name": (escaping("x" * 300), "ARCHIVE_LIMIT"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_archives_are_refused(stack: Stack, case: str) -> None:
    """What is no image, or a hostile one, is refused with its reason and leaves no image behind."""
    archive, reason = BAD[case]
    assert (await refused(stack, archive)).reason == reason
    listed = await stack.images.ListImages(pb.ListImagesRequest())
    assert list(listed.images) == []


async def test_references_move(stack: Stack) -> None:
    """A reference names the image that was imported last with it."""
    first = await stack.import_image(layout(), "app")
    second = await stack.import_image(layout(File("other", b"2")), "app")
    found = await stack.images.GetImage(pb.GetImageRequest(reference="docker.io/library/app:latest"))
    assert found == second
    assert (await stack.images.GetImage(pb.GetImageRequest(name=first.name))).references == []


async def test_images_are_found_by_every_name(stack: Stack) -> None:
    """An image is found by resource name, reference, configuration digest and manifest digest."""
    image = await stack.import_image(layout(), "app:2")
    for reference in ("app:2", image.digest, image.manifest_digest, f"app@{image.manifest_digest}"):
        assert await stack.images.GetImage(pb.GetImageRequest(reference=reference)) == image
    for request in (pb.GetImageRequest(reference="absent"), pb.GetImageRequest(name="hosts/h1/images/" + "0" * 64)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.images.GetImage(request)
        assert rpc_error(caught.value).reason == "IMAGE_UNKNOWN"
    for request in (pb.GetImageRequest(), pb.GetImageRequest(name=image.name, reference="app:2")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.images.GetImage(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("reference", ["UPPER", "a:b:c", "a@sha256:12", "-a", "a" * 300, "a/../b"])
async def test_malformed_references_are_refused(stack: Stack, reference: str) -> None:
    """References follow the grammar that container engines share."""
    assert (await refused(stack, layout(), reference)).reason in ("REFERENCE_MALFORMED", "REQUEST_INVALID")


async def test_deleting_a_reference_keeps_the_image(stack: Stack) -> None:
    """With several references only the one given goes; with the last one the image and its blobs go."""
    await stack.import_image(layout(), "a")
    image = await stack.import_image(layout(), "b")
    first = await stack.images.DeleteImage(pb.DeleteImageRequest(reference="a"))
    assert (list(first.removed_references), first.image_deleted) == (["docker.io/library/a:latest"], False)
    second = await stack.images.DeleteImage(pb.DeleteImageRequest(reference="b"))
    assert second.image_deleted
    assert second.freed_bytes >= image.size_bytes
    with pytest.raises(grpc.aio.AioRpcError):
        await stack.images.GetImage(pb.GetImageRequest(name=image.name))


@pytest.mark.inside
async def test_blobs_that_others_use_stay(stack: Stack) -> None:
    """Deleting an image keeps the layers that another image shares."""
    base = [File("base", b"b" * 5000)]
    one = build_image([File("one", b"1")], Config(), lower_layers=[base])
    two = build_image([File("two", b"2")], Config(), lower_layers=[base])
    first, second = await stack.import_image(one), await stack.import_image(two)
    await stack.images.DeleteImage(pb.DeleteImageRequest(name=first.name))
    images = stack.service.runtime.images
    trees = images.layers(images.resolve(second.digest))
    assert images.read(trees[0].children["base"].entry.digest, 0, 5000) == b"b" * 5000


async def test_images_in_use_are_kept(stack: Stack) -> None:
    """An image that a container was made from cannot be deleted."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.create(image, "/writer", "1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stack.images.DeleteImage(pb.DeleteImageRequest(name=image.name))
    assert rpc_error(caught.value).reason == "IMAGE_IN_USE"
    await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=name))
    await stack.images.DeleteImage(pb.DeleteImageRequest(name=image.name))


async def test_import_messages_have_an_order(stack: Stack) -> None:
    """Chunks before the start, a second start, and no start at all are refused."""
    start, chunk = pb.ImportImageRequest(start=pb.ImportStart()), pb.ImportImageRequest(chunk=b"x")
    for messages in ([chunk], [start, start], []):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stack.images.ImportImage(iter(messages))
        assert rpc_error(caught.value).reason == "REQUEST_INVALID"


async def test_imports_runs_and_deletions_do_not_disturb_each_other(stack: Stack) -> None:
    """Images that share a layer are imported, run and deleted at the same time; each call does what it would alone."""
    program = compile_test_program("show")

    async def life(number: int) -> int:
        config = Config(labels=(("number", str(number)),))
        archive = build_image([File("show", program, mode=0o755)], config)
        image = await stack.import_image(archive)
        ended = await stack.run(image, "/show", "/show")
        for container in (await stack.containers.ListContainers(pb.ListContainersRequest())).containers:
            if container.resolved_image == image.name:
                await stack.containers.RemoveContainer(pb.RemoveContainerRequest(name=container.name))
        await stack.images.DeleteImage(pb.DeleteImageRequest(name=image.name))
        return ended.code

    codes = await asyncio.gather(*(life(number) for number in range(8)))
    assert codes == [0] * 8
    assert not (await stack.images.ListImages(pb.ListImagesRequest())).images
