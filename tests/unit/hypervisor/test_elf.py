"""Kernel images: what is taken, and what is refused and why."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from lamina_hypervisor.domain.boot.elf import check_fits, parse_kernel
from lamina_hypervisor.domain.memory.addresses import Gpa
from lamina_kit.errors import InvalidArgument

Make = Callable[..., bytes]


def test_a_kernel_has_entry_and_segments(make_image: Make) -> None:
    """The loadable segment goes to its physical address and grows by zeros to its memory size."""
    kernel = parse_kernel(make_image(b"abcd", memory=0x3000))
    assert kernel.entry == 0x100000
    assert (kernel.start, kernel.end) == (0x100000, 0x103000)
    assert kernel.segments[0].data == b"abcd"


def patched(image: bytes, at: int, layout: str, value: int) -> bytes:
    """Returns an image with one field changed."""
    field = struct.pack(layout, value)
    return image[:at] + field + image[at + len(field) :]


@pytest.mark.parametrize(
    ("at", "layout", "value", "cause"),
    [
        (0, "<I", 0x1234, "mark of ELF"),
        (4, "<B", 1, "class 1"),
        (18, "<H", 183, "machine 183"),
        (16, "<H", 3, "type 3"),
        (56, "<H", 0, "program headers"),
        (56, "<H", 60000, "program headers"),
        (32, "<Q", 1 << 63, "program headers"),
        (24, "<Q", 0x500000, "entry point"),
        (64, "<I", 3, "interpreter"),
        (64, "<I", 2, "nothing to load"),
        (64 + 8, "<Q", 1 << 40, "truncated"),
        (64 + 32, "<Q", 1 << 62, "truncated"),
        (64 + 40, "<Q", 1, "not possible"),
        (64 + 40, "<Q", 1 << 50, "not possible"),
    ],
)
def test_a_wrong_image_is_refused_with_its_cause(
    make_image: Make, at: int, layout: str, value: int, cause: str
) -> None:
    """Every field that could mislead the loader is checked, and the message says which it was."""
    with pytest.raises(InvalidArgument, match=cause) as caught:
        parse_kernel(patched(make_image(), at, layout, value))
    assert caught.value.reason == "KERNEL_MALFORMED"


@pytest.mark.parametrize("size", [0, 1, 63, 64, 100, 125])
def test_a_truncated_image_is_refused(make_image: Make, size: int) -> None:
    """Whatever is cut off the end, the image is refused and nothing is read beyond it."""
    with pytest.raises(InvalidArgument):
        parse_kernel(make_image()[:size])


def test_overlapping_segments_are_refused(make_image: Make) -> None:
    """Two segments that claim the same address leave open which one counts."""
    image = make_image(b"x" * 64)
    program = image[64:120]
    doubled = patched(image, 56, "<H", 2)
    with pytest.raises(InvalidArgument, match="overlap"):
        parse_kernel(doubled[:64] + program + program + image[120:] + bytes(64))


def test_a_kernel_must_fit_between_1_mib_and_the_end_of_ram(make_image: Make) -> None:
    """A kernel below 1 MiB would overwrite the boot tables, one beyond RAM has no memory."""
    low = parse_kernel(make_image(gpa=0x1000))
    with pytest.raises(InvalidArgument, match="is not within"):
        check_fits(low, Gpa(0x100000), 16 << 20)
    big = parse_kernel(make_image(memory=32 << 20))
    with pytest.raises(InvalidArgument, match="is not within"):
        check_fits(big, Gpa(0x100000), 16 << 20)
