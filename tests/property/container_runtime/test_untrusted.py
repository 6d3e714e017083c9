"""Input that nobody should trust: programs, archives, layers, references, log lines and documents, by fuzzing."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lamina_cli.guests.oci import Config, File, build_image, build_layer
from lamina_container_runtime.domain import elf
from lamina_container_runtime.domain.containers import log_line
from lamina_container_runtime.domain.containers.log_line import LogLine
from lamina_container_runtime.domain.images import digest as digests
from lamina_container_runtime.domain.images import oci_document, reference
from lamina_container_runtime.io.images.archive import Archive
from lamina_container_runtime.io.images.blobs import BlobStore
from lamina_container_runtime.io.images.unpack import unpack
from lamina_kit.errors import InvalidArgument, LaminaError
from lamina_kit.paging import USER_END

MINIMAL = bytes.fromhex(
    "7f454c4602010100000000000000000002003e000100000000014000000000004000000000000000000000000000000000000000"
    "400038000100000000000000"
    "0100000005000000000000000000000000004000000000000000400000000000000200000000000000020000000000000010000000000000"
).ljust(0x400, b"\x90")


def mutated(base: bytes) -> st.SearchStrategy[bytes]:
    """Returns `base` with some bytes changed, cut or repeated."""

    def change(edits: list[tuple[int, int]], cut: int) -> bytes:
        data = bytearray(base)
        for position, byte in edits:
            data[position % len(data)] = byte
        return bytes(data[: len(data) - cut % len(data)])

    edits = st.lists(st.tuples(st.integers(0, len(base) - 1), st.integers(0, 255)), max_size=12)
    return st.builds(change, edits, st.one_of(st.just(0), st.integers(0, len(base))))


@settings(max_examples=400)
@given(st.one_of(st.binary(max_size=300), mutated(MINIMAL)))
@example(MINIMAL)
def test_any_bytes_are_a_program_within_bounds_or_refused(data: bytes) -> None:
    """What is accepted lies in user addresses and in the file; everything else is INVALID_ARGUMENT."""
    try:
        found = elf.parse(lambda offset, count: data[offset : offset + count], len(data))
    except InvalidArgument:
        return
    assert found.segments
    for part in found.segments:
        assert 0 <= part.start <= part.file_end <= part.end <= USER_END
        assert part.offset + part.file_size <= len(data)
        assert (part.offset ^ part.vaddr) % 4096 == 0 or not part.file_size
    ordered = sorted(found.segments, key=lambda part: part.vaddr)
    assert all(low.vaddr + low.mem_size <= high.vaddr for low, high in pairwise(ordered))


def test_the_program_that_is_fuzzed_is_one() -> None:
    """Fuzzing starts from a program that is accepted."""
    assert elf.parse(lambda offset, count: MINIMAL[offset : offset + count], len(MINIMAL)).entry == 0x400100


IMAGE = build_image([File("a", b"content"), File("d/b", b"more", mode=0o755)], Config(cmd=("/a",)), reference="x:1")
LINKS = [File("l", kind="symlink", target="a"), File("h", kind="hardlink", target="a")]
LAYER = build_layer([File("a", b"x" * 600), *LINKS])


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=2000), mutated(IMAGE)))
def test_any_bytes_are_an_archive_or_refused(data: bytes) -> None:
    """A damaged archive is an error of the kit, never another one, and what is accepted has its digests."""
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder))
        try:
            archive = Archive(io.BytesIO(data), store)
            found = list(archive.images())
        except LaminaError:
            return
        for image in found:
            for digest in (image.manifest_digest, image.config.digest, *(stored for stored, _ in image.layers)):
                assert digests.of(store.path(digest).read_bytes()) == digest


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=2000), mutated(LAYER)))
def test_any_bytes_are_a_layer_or_refused(data: bytes) -> None:
    """A damaged layer is an error of the kit, and its files stay below the content store."""
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder) / "store")
        with suppress(LaminaError):
            unpack(io.BytesIO(data), store, "the layer")
        assert [path.name for path in Path(folder).iterdir()] == ["store"]
        assert list((Path(folder) / "store" / "tmp").iterdir()) == []


@given(st.text(max_size=60))
def test_references_are_normal_or_refused(text: str) -> None:
    """A normal form is its own normal form."""
    try:
        full = reference.normalise(text)
    except InvalidArgument:
        return
    assert reference.normalise(full) == full


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["config", "layers", "digest", "size", "manifests", "rootfs", "diff_ids", "os", "Config"]),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)


@given(JSON)
def test_documents_of_any_shape_are_read_or_refused(value: object) -> None:
    """Wrong types anywhere in a document are INVALID_ARGUMENT."""
    data = json.dumps(value).encode()
    refused = 0
    readers = (oci_document.parse_index, oci_document.parse_manifest, oci_document.parse_config)
    for parse in readers:
        try:
            parse(data, "x")
        except InvalidArgument as error:
            assert error.reason in ("ARCHIVE_MALFORMED", "ARCHIVE_LIMIT")
            refused += 1
    assert refused >= len(readers) - 1, "a document cannot be of two kinds at once"


@given(st.integers(0, 4 * 10**18), st.sampled_from(["stdout", "stderr"]), st.binary(max_size=50), st.booleans())
def test_log_lines_come_back_as_they_were(time_ns: int, stream: str, data: bytes, partial: bool) -> None:
    """Any content without a newline survives the log."""
    line = LogLine(time_ns, stream, data.replace(b"\n", b""), partial)
    text = log_line.format(line)
    assert text.endswith(b"\n")
    assert log_line.parse(text[:-1]) == line


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_lines_put_together_are_what_was_written(pieces: list[bytes]) -> None:
    """However writes are cut, the entries give the bytes again."""
    waiting, out = bytearray(), b""
    for piece in pieces:
        waiting += piece
        for data, partial in log_line.take_lines(waiting):
            out += data if partial else data + b"\n"
    assert out + bytes(waiting) == b"".join(pieces)
