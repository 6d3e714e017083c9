"""Names, traces, configuration and run pages: what is formatted is parsed again, and nothing else gets through."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from lamina_kit import config
from lamina_kit.bus.run_page import ExitRecord, RunPage, Segment
from lamina_kit.errors import FailedPrecondition, InvalidArgument
from lamina_kit.names import Pattern
from lamina_kit.paging import bit_names, decode, index, is_canonical, swap_entry, swap_slot
from lamina_kit.telemetry import trace

VM = Pattern("hosts/{host}/vms/{vm}/disks/{disk}")
ids = st.from_regex(r"[a-z0-9]([-.a-z0-9]{0,125}[a-z0-9])?", fullmatch=True)
words = st.integers(0, 2**64 - 1)


@given(host=ids, vm=ids, disk=ids)
def test_names_round_trip(host: str, vm: str, disk: str) -> None:
    """Every allowed id comes back out of the name."""
    assert VM.parse(VM.format(host=host, vm=vm, disk=disk)) == {"host": host, "vm": vm, "disk": disk}


@given(st.one_of(st.text(), st.text("hostsvmdik/{}.-0\n", max_size=40).map(lambda tail: f"hosts/{tail}")))
def test_a_name_is_parsed_or_refused(name: str) -> None:
    """Any text is either a name that formats back to itself, or NAME_MALFORMED."""
    try:
        parsed = VM.parse(name)
    except InvalidArgument as error:
        assert error.reason == "NAME_MALFORMED" and len(str(error)) < 500
    else:
        assert VM.format(**parsed) == name and ".." not in name.split("/")


@given(trace_id=st.integers(1, 2**128 - 1), span_id=st.integers(1, 2**64 - 1), flags=st.integers(0, 255))
def test_traceparents_round_trip(trace_id: int, span_id: int, flags: int) -> None:
    """Every well-formed header is read and sent on unchanged."""
    header = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}"
    context = trace.parse(header)
    assert context is not None and context.header == header
    assert int(context.trace_id, 16) == trace_id and context.sampled == bool(flags & 1)


@given(st.one_of(st.text(), st.binary(), st.text("0123456789abcdef-", min_size=50, max_size=60)))
def test_any_traceparent_is_read_or_ignored(header: str | bytes) -> None:
    """No header raises, and one that is taken is well formed."""
    context = trace.parse(header)
    if context is not None:
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", context.header)


@dataclass(frozen=True)
class Section:
    """A section of each type."""

    count: int = 1
    share: float = 0.5
    strict: bool = False
    name: str = ""
    path: Path | None = None
    policy: Literal["a", "b"] = "a"
    listen: tuple[str, ...] = ()


names = st.one_of(st.sampled_from([entry.name for entry in fields(Section)]), st.text(max_size=10))
toml_values = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["true", "false", '"text"', "[]", '["a"]', "[1]", "{}", "1979-05-27", '"a"']),
    st.text(max_size=10),
)


@given(
    lines=st.lists(st.tuples(names, toml_values), max_size=4),
    environ=st.dictionaries(names.map(lambda name: f"LAMINA_T_{name.upper()}"), st.text(max_size=12), max_size=4),
)
def test_configuration_is_typed_or_refused(lines: list[tuple[str, str]], environ: dict[str, str]) -> None:
    """Whatever stands in the file and the environment: a typed section, or an error that says which key."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.toml"
        text = "[t]\n" + "".join(f"{key} = {value}\n" for key, value in lines)
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            section = config.load("t", Section, file, environ)
        except InvalidArgument as error:
            assert error.reason in ("CONFIG_MALFORMED", "CONFIG_UNKNOWN_KEY", "CONFIG_WRONG_TYPE")
            return
    assert type(section.count) is int and type(section.share) is float and type(section.strict) is bool
    assert type(section.name) is str and section.policy in ("a", "b")
    assert section.path is None or isinstance(section.path, Path)
    assert isinstance(section.listen, tuple) and all(type(part) is str for part in section.listen)


@given(
    gpr=st.lists(words, min_size=16, max_size=16),
    rip=words,
    base=words,
    exits=st.lists(words, min_size=18, max_size=18),
)
def test_run_pages_round_trip(gpr: list[int], rip: int, base: int, exits: list[int]) -> None:
    """Registers, segments and exit record keep any 64-bit value."""
    page = RunPage(memoryview(bytearray(4096)))
    for number, value in enumerate(gpr):
        page.gpr[number] = value
    page.rip, page.fs_base = rip, base
    page.set_segment("tr", Segment(base % 2**16, base, rip % 2**32, 0x8B))
    page.store_exit(ExitRecord(*exits))
    copy = RunPage(memoryview(bytearray(page.view)))
    other = RunPage(memoryview(bytearray(4096)))
    other.restore(copy.save())
    for seen in (copy, other):
        assert list(seen.gpr) == gpr and (seen.rip, seen.fs_base) == (rip, base)
        assert seen.segment("tr") == Segment(base % 2**16, base, rip % 2**32, 0x8B)
    assert copy.load_exit() == ExitRecord(*exits) and other.load_exit() == ExitRecord(access_register=0)


@given(entry=words, va=words, slot=st.integers(0, 2**40 - 1))
def test_entries_and_addresses_come_apart(entry: int, va: int, slot: int) -> None:
    """Decoding agrees with the bits, indices rebuild a canonical address, swap slots round-trip."""
    bits = decode(entry)
    assert bits.present == bool(entry & 1) and ("P" in bit_names(entry)) == bits.present
    assert 0 <= bits.frame < 2**40
    low = sum(index(va, level) << (12 + 9 * (level - 1)) for level in (1, 2, 3, 4)) | va & 0xFFF
    assert low == va & (2**48 - 1)
    assert is_canonical(va) == (va in (low, low | 0xFFFF << 48) and (va >> 47) in (0, 0x1FFFF))
    assert swap_slot(swap_entry(slot)) == slot == decode(swap_entry(slot)).frame


@given(data=st.data())
def test_whatever_a_run_page_holds_it_is_read(data: st.DataObject) -> None:
    """A page that the other side filled with anything is decoded without error, or refused as foreign."""
    raw = bytearray(data.draw(st.binary(min_size=64, max_size=64)) * 64)
    if data.draw(st.booleans()):
        raw[0:8] = bytes(RunPage(memoryview(bytearray(4096))).view[0:8])
    try:
        page = RunPage(memoryview(raw))
    except FailedPrecondition as error:
        assert error.reason == "RUN_PAGE_FOREIGN"
        return
    record: Any = page.load_exit()
    assert 0 <= record.reason < 2**64 and len(page.cpuid()) <= 32
