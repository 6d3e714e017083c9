"""`./run gen`: writes everything that is generated, and says whether what is committed is up to date.

Three things are generated: the Python code of the contracts (`protos/gen`), the descriptor image that `buf breaking`
compares with (`protos/lamina.binpb`), and the generated documents (`documents.py`).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lamina_tools import contracts, documents
from lamina_tools.contracts import FROZEN, GENERATED, IMAGE, ContractsFailed
from lamina_tools.tree import ROOT, files


def content_below(folder: Path) -> dict[Path, bytes]:
    """Returns the content of every file below a folder, by path relative to it."""
    return {path: (folder / path).read_bytes() for path in files(folder)}


def code(root: Path) -> dict[Path, bytes]:
    """Returns the generated code as it should be, by path relative to the root."""
    with tempfile.TemporaryDirectory() as scratch:
        contracts.write_code(root, Path(scratch))
        return {GENERATED / path: content for path, content in content_below(Path(scratch)).items()}


def wanted(root: Path) -> dict[Path, bytes]:
    """Returns every generated file as it should be, by path relative to the root."""
    whole = contracts.image(root)
    committed = contracts.own(whole, root).SerializeToString(deterministic=True)
    texts = {path: text.encode() for path, text in documents.generated(root, whole).items()}
    return code(root) | {IMAGE: committed} | texts


def present(root: Path) -> dict[Path, bytes]:
    """Returns every generated file as it is, by path relative to the root."""
    found = [*files(root, str(GENERATED)), *files(root, str(documents.RPC_FOLDER)), IMAGE, *documents.SINGLE]
    return {path: (root / path).read_bytes() for path in found if (root / path).exists()}


def drift(root: Path = ROOT) -> list[str]:
    """Returns how the committed files differ from what would be generated, one line a file."""
    should, are = wanted(root), present(root)
    return [
        *(f"{path}: missing" for path in sorted(should.keys() - are.keys())),
        *(f"{path}: nothing generates it any more" for path in sorted(are.keys() - should.keys())),
        *(f"{path}: out of date" for path in sorted(should.keys() & are.keys()) if should[path] != are[path]),
    ]


def write(root: Path) -> list[str]:
    """Makes the tree's generated files what they should be; returns what changed, one line a file."""
    should, are = wanted(root), present(root)
    changes = []
    for path in sorted(are.keys() - should.keys()):
        (root / path).unlink()
        changes.append(f"removed {path}")
    for path, content in sorted(should.items()):
        if are.get(path) != content:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            changes.append(f"wrote {path}")
    return changes


def refusals(root: Path, accepted: str | None) -> list[str]:
    """Returns why the contracts may not be replaced: the promises that they break without a decision that allows it.

    Before `protos/FROZEN` exists nothing is promised.
    """
    if not (root / FROZEN).exists():
        return []
    before = contracts.read_committed(root)
    if before is None:
        return [f"{IMAGE} is missing, and with it what was promised: git checkout {IMAGE}"]
    broken = contracts.breaking(root, contracts.image(root), before)
    if not broken or accepted is None:
        return broken
    number = re.fullmatch(r"(?:ADR-)?(\d{1,4})", accepted, re.IGNORECASE)
    if number and any((root / documents.ADR_FOLDER).glob(f"{int(number[1]):04d}-*.md")):
        return []
    return [f"there is no decision {accepted} in {documents.ADR_FOLDER}", *broken]


def main(arguments: Sequence[str]) -> int:
    """Runs `./run gen`; returns its exit status."""
    parser = argparse.ArgumentParser(prog="./run gen", description="Write everything that is generated.")
    parser.add_argument("--accept", metavar="ADR-n", help="the decision that allows to break a frozen contract")
    options = parser.parse_args(arguments)
    try:
        refused = refusals(ROOT, options.accept)
        if refused:
            print("These changes break contracts that are frozen:", *refused, sep="\n  ")
            print("Make them compatible, or decide in an ADR and name it: ./run gen --accept ADR-n")
            return 1
        changes = write(ROOT)
    except ContractsFailed as failure:
        print(failure)
        return 1
    print(*changes or ["everything generated is up to date"], sep="\n")
    return 0
