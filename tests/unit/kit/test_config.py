"""Typed configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from lamina_kit import config
from lamina_kit.errors import InvalidArgument, NotFound, PermissionDenied


@dataclass(frozen=True)
class Sample:
    """A section with a field of each type."""

    frames: int = 64
    ratio: float = 0.5
    strict: bool = True
    name: str = "x"
    swap_path: Path | None = None
    policy: Literal["lru", "clock"] = "lru"
    listen: tuple[str, ...] = ()


def load(tmp_path: Path, text: str = "", **environ: str) -> Sample:
    """Returns the section `mmu` of a file with `text` and an environment."""
    file = tmp_path / "lamina.toml"
    file.write_text(text)
    return config.load("mmu", Sample, file, environ)


def test_defaults_hold_without_a_file() -> None:
    """Nothing given gives the dataclass's own defaults."""
    assert config.load("mmu", Sample, None, {}) == Sample()


def test_the_file_and_then_the_environment_decide(tmp_path: Path) -> None:
    """The environment overrides the file, the file the defaults; other sections are not read."""
    got = load(
        tmp_path,
        '[mmu]\nframes = 128\nratio = 1\nstrict = false\nswap_path = "/s"\nlisten = ["a", "b"]\n'
        '[other]\nframes = "?"\n',
        LAMINA_MMU_FRAMES="0x100",
        LAMINA_MMU_POLICY="clock",
        LAMINA_OTHER_FRAMES="?",
        HOME="/root",
    )
    assert got == Sample(256, 1.0, False, "x", Path("/s"), "clock", ("a", "b"))


def test_the_environment_speaks_text(tmp_path: Path) -> None:
    """Booleans, lists and nothing are written as people write them."""
    got = load(tmp_path, LAMINA_MMU_STRICT="off", LAMINA_MMU_LISTEN="a, b,", LAMINA_MMU_SWAP_PATH="")
    assert (got.strict, got.listen, got.swap_path) == (False, ("a", "b"), None)


def test_a_layer_with_a_hyphen_has_an_underscore_in_the_environment() -> None:
    """`container-runtime` is LAMINA_CONTAINER_RUNTIME_…."""
    got = config.load("container-runtime", Sample, None, {"LAMINA_CONTAINER_RUNTIME_FRAMES": "7"})
    assert got.frames == 7


def test_an_unknown_key_is_named_with_its_neighbour(tmp_path: Path) -> None:
    """CONFIG_UNKNOWN_KEY says which key, where, and which was meant."""
    with pytest.raises(InvalidArgument, match=r"mmu\.framse.*lamina\.toml.*mmu\.frames") as caught:
        load(tmp_path, "[mmu]\nframse = 1\n")
    assert caught.value.reason == "CONFIG_UNKNOWN_KEY"
    with pytest.raises(InvalidArgument, match=r"LAMINA_MMU_FRAMSE.*LAMINA_MMU_FRAMES"):
        load(tmp_path, LAMINA_MMU_FRAMSE="1")
    with pytest.raises(InvalidArgument, match="Known are: frames"):
        load(tmp_path, "[mmu]\nzzz = 1\n")


@pytest.mark.parametrize(
    "line",
    ['frames = "many"', "frames = 1.5", "frames = true", "ratio = []", "strict = 1", "name = 3", 'policy = "mru"',
     "listen = [1]", 'listen = "a"', "swap_path = 1", 'name = "a\\u0000b"'],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_named(tmp_path: Path, line: str) -> None:
    """CONFIG_WRONG_TYPE says which key, in which file, and what is right."""
    with pytest.raises(InvalidArgument) as caught:
        load(tmp_path, f"[mmu]\n{line}\n")
    key = line.split(" ", 1)[0]
    assert caught.value.reason == "CONFIG_WRONG_TYPE"
    assert f"mmu.{key}" in caught.value.message and "lamina.toml" in caught.value.message


@pytest.mark.parametrize("value", ["", "many", "1e3", "9" * 5000])
def test_a_number_from_the_environment_is_checked(tmp_path: Path, value: str) -> None:
    """A text that is no number is refused, however long."""
    with pytest.raises(InvalidArgument, match="LAMINA_MMU_FRAMES") as caught:
        load(tmp_path, LAMINA_MMU_FRAMES=value)
    assert caught.value.reason == "CONFIG_WRONG_TYPE" and len(caught.value.message) < 400


@pytest.mark.parametrize("text", ["[mmu", "\x00", "mmu = 1\n[mmu]", "a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    """CONFIG_MALFORMED names the file and the place."""
    with pytest.raises(InvalidArgument, match=r"lamina\.toml") as caught:
        load(tmp_path, text)
    assert caught.value.reason == "CONFIG_MALFORMED"


def test_a_section_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """A value where a section belongs names itself."""
    with pytest.raises(InvalidArgument) as caught:
        load(tmp_path, "mmu = 1\n")
    assert caught.value.reason == "CONFIG_WRONG_TYPE"


def test_other_trouble_with_the_file_is_told(tmp_path: Path) -> None:
    """A missing file, a huge one, and one that the system does not let us read are refused."""
    with pytest.raises(NotFound) as caught:
        config.load("mmu", Sample, tmp_path / "none.toml", {})
    assert caught.value.reason == "CONFIG_NOT_FOUND"
    with pytest.raises(InvalidArgument, match="more than"):
        load(tmp_path, "#" * (1 << 20) + "x")
    with pytest.raises(PermissionDenied, match="cannot be read") as unreadable:
        config.load("mmu", Sample, tmp_path, {})
    assert unreadable.value.reason == "CONFIG_UNREADABLE"


def test_unknown_sections_are_found(tmp_path: Path) -> None:
    """A misspelt section is not silently ignored."""
    file = tmp_path / "lamina.toml"
    file.write_text("[mmu]\n[hipervisor]\n")
    with pytest.raises(InvalidArgument, match="hypervisor") as caught:
        config.check_sections(file, ["mmu", "hypervisor"])
    assert caught.value.reason == "CONFIG_UNKNOWN_KEY"
    file.write_text("[mmu]\n")
    config.check_sections(file, ["mmu"])
