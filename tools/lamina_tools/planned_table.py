"""What the contracts offer and nothing serves yet: `docs/planned.md`, and its agreement with `docs/systems.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lamina_tools.rpc_reference import NOTICE, Method, Package, Service, anchor
from lamina_tools.systems_table import NUMBERS, Row

INTRODUCTION = """# Planned

The contracts cover every system of `docs/systems.md`, so that what is built later changes no caller. The calls below
are in the contracts and not served yet: they answer UNIMPLEMENTED `NOT_SERVED_YET` and name the systems that they wait
for (the option `(lamina.common.v1.planned)`).
"""


def planned(packages: Iterable[Package]) -> Iterator[tuple[Package, Service, Method]]:
    """Yields the calls that are not served yet, in the order of packages and contracts."""
    for package in packages:
        for service in package.services:
            for method in service.methods:
                if method.planned:
                    yield package, service, method


def page(packages: Iterable[Package]) -> str:
    """Returns the page: one table, a row for each call, by system and then in the order of the contracts."""
    waiting = sorted(planned(packages), key=lambda found: found[2].planned)
    rows = [
        f"| {method.planned} | [{package.title} {service.name}.{method.name}]"
        f"(rpc/{package.title}.md#{anchor(f'{service.name}.{method.name}')}) | {first_sentence(method.comment)} |"
        for package, service, method in waiting
    ]
    return "\n".join([NOTICE, "", INTRODUCTION, "| waits for | call | what it does |", "|---|---|---|", *rows]) + "\n"


def first_sentence(comment: str) -> str:
    """Returns the first sentence of a comment, fit for the cell of a table."""
    text = " ".join(comment.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z])", text)[0].replace("|", "\\|")


def disagreements(packages: Iterable[Package], rows: Iterable[Row]) -> Iterator[str]:
    """Yields where contracts and table disagree, one line each.

    A planned call names systems that exist. A system that is open or stands in part has calls that wait for it. What
    the table calls the contract of a system exists, and is served unless the system is open.
    """
    packages, rows = list(packages), list(rows)
    served = {
        f"{package.title.partition('.')[0]} {service.name}.{method.name}": not method.planned
        for package in packages
        for service in package.services
        for method in service.methods
    }
    waited_for: set[str] = set()
    for package, service, method in planned(packages):
        names = method.planned.split(" ")
        waited_for.update(names)
        for name in names:
            if name not in NUMBERS:
                yield f"{package.name}.{service.name}.{method.name} waits for {name!r}, which is no system"
    for row in rows:
        if row.state in ("open", "part") and row.number not in waited_for:
            yield f"{row.number} is {row.state}, but no call of the contracts waits for it"
        calls = re.findall(r"`([^`]+)`", row.contract)
        if row.state != "open" and not calls:
            yield f"{row.number} is {row.state}, but names no call of its contract"
        for call in calls:
            if call not in served:
                yield f"{row.number} names {call}, which is in no contract"
            elif not served[call] and row.state != "open":
                yield f"{row.number} is {row.state}, but {call} is not served yet"
