"""The generated documents: the RPC reference, what is planned, the index of decisions, and the rooms of the house."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from lamina_tools import contracts, house, planned_table, rpc_reference

RPC_INDEX = Path("docs/rpc.md")
RPC_FOLDER = Path("docs/rpc")
ADR_FOLDER = Path("docs/adr")
ADR_INDEX = ADR_FOLDER / "README.md"
PLANNED = Path("docs/planned.md")
SINGLE = (RPC_INDEX, ADR_INDEX, PLANNED, house.PAGE)
"""Generated documents, or documents with a generated part, outside the folder that is generated as a whole."""

BEGIN, END = "<!-- generated: ./run gen -->", "<!-- end of the generated part -->"


@dataclass(frozen=True)
class Decision:
    """One architecture decision record."""

    number: int
    title: str
    status: str
    file: str


def decisions(root: Path) -> list[Decision]:
    """Returns the decision records of the tree by number.

    A record is `NNNN-words.md`; its first heading is its title, with or without its number; a line that begins with
    `Status` gives its state, `accepted` where none does.
    """
    found = []
    for path in sorted((root / ADR_FOLDER).glob("[0-9][0-9][0-9][0-9]-*.md")):
        text = path.read_text()
        heading = re.search(r"^# +(?:(?:ADR[- ]?)?\d+[.: –-]*)?(.+)$", text, re.MULTILINE | re.IGNORECASE)
        status = re.search(r"^\W*Status\W+(\w[^\n.;]*)", text, re.MULTILINE | re.IGNORECASE)
        found.append(
            Decision(
                int(path.name[:4]),
                heading[1].strip() if heading else path.stem[5:],
                status[1].strip(" *_") if status else "accepted",
                path.name,
            )
        )
    return found


def adr_index(root: Path) -> str:
    """Returns the index of decisions: the written page with its table filled in between the two marks."""
    page = (root / ADR_INDEX).read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise contracts.ContractsFailed(f"{ADR_INDEX} has lost the marks of its generated part: {BEGIN} … {END}")
    rows = [f"| {d.number:04d} | [{d.title}]({d.file}) | {d.status} |" for d in decisions(root)]
    return "\n".join([before + BEGIN, "| number | decision | status |", "|---|---|---|", *rows, END + after])


def generated(root: Path, image: FileDescriptorSet) -> dict[Path, str]:
    """Returns the text of every generated document, by path relative to the root."""
    packages = rpc_reference.packages(image, set(contracts.proto_files(root)))
    pages = {RPC_FOLDER / f"{p.title}.md": rpc_reference.page(p) for p in packages}
    single = {
        RPC_INDEX: rpc_reference.index(packages),
        ADR_INDEX: adr_index(root),
        PLANNED: planned_table.page(packages),
        house.PAGE: house.page(root),
    }
    return {**single, **pages}
