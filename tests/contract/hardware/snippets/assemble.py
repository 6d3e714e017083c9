"""Assembles the snippets anew: `python -m tests.contract.hardware.snippets.assemble` writes `machine_code.json`.

Needs the GNU assembler (`as`, `nm`, `objcopy`); running the snippets does not. Each entry keeps a digest of the source
that it was made of, and a test compares it with the source as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.contract.hardware.snippets import recorder
from tests.contract.hardware.snippets.catalogue import SNIPPETS
from tests.contract.hardware.snippets.places import KERNEL, NAMES, RECORDER, UTEXT


def sources() -> Iterator[tuple[str, str, int]]:
    """Yields each program: name, source, address."""
    yield "recorder", recorder.SOURCE, RECORDER
    for snippet in SNIPPETS:
        yield snippet.name, snippet.source, KERNEL
        if snippet.user:
            yield f"{snippet.name}.user", snippet.user, UTEXT


def digest(source: str) -> str:
    """Returns what identifies a source, with the addresses that its names stand for."""
    return hashlib.sha256(_expand(source).encode()).hexdigest()[:8]


def _expand(source: str) -> str:
    names = re.compile(r"\b(" + "|".join(NAMES) + r")\b")
    return names.sub(lambda found: hex(NAMES[found[1]]), source)


def assemble(source: str, address: int) -> tuple[bytes, dict[str, int]]:
    """Returns machine code, and the address of each label."""
    with tempfile.TemporaryDirectory() as folder:
        text, binary, flat = (Path(folder) / name for name in ("in.s", "out.o", "out.bin"))
        text.write_text(f".intel_syntax noprefix\n{_expand(source)}\n")
        subprocess.run(["as", "--64", "-o", binary, text], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", binary, flat], check=True)
        symbols = subprocess.run(["nm", binary], check=True, capture_output=True, text=True).stdout
        labels = {}
        for line in symbols.splitlines():
            place, kind, name = line.rjust(40).rsplit(maxsplit=2) if line.split()[0] != "U" else ("", *line.split())
            if kind != "t":
                raise SystemExit(f"{name} in {source!r} is not defined")
            labels[name] = address + int(place, 16)
        return flat.read_bytes(), labels


def main() -> None:
    """Writes `machine_code.json`."""
    lines = []
    for name, source, address in sources():
        code, labels = assemble(source, address)
        if len(code) > 4096:
            raise SystemExit(f"{name} has {len(code)} bytes; a page holds 4096")
        lines.append(f"{json.dumps(name)}: {json.dumps([digest(source), code.hex(), labels], sort_keys=True)}")
    Path(__file__).with_name("machine_code.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
