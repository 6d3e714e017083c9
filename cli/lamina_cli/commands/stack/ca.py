"""`lamina ca`: makes certificates for traffic beyond the host, issued by an authority of one's own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_cli.client import home
from lamina_cli.client.client import add_form, guarded
from lamina_cli.input import parse
from lamina_cli.output import printing

if TYPE_CHECKING:
    from lamina_cli.authority import Authority

Work = Callable[["Authority", argparse.Namespace], int]
WITHIN_DAYS = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands."""
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    made = verbs.add_parser("init", help="make an authority; refuses to replace one")
    made.add_argument("--name", default="Lamina development CA", help="its name, as certificates show it")
    made.add_argument("--days", type=parse.INT32, default=3650, help="how long it lasts (default 3650)")
    _command(made, init)
    issued = verbs.add_parser("issue", help="issue a certificate and its key, for a server and a client in one")
    issued.add_argument("name", metavar="NAME", help="who gets it, for example mmu; a folder of this name is made")
    issued.add_argument(
        "--san", action="append", default=[], metavar="HOST", help="name or address it is called by; may be repeated"
    )
    issued.add_argument("--days", type=parse.INT32, default=365, help="how long it lasts (default 365)")
    _command(issued, issue)
    listed = verbs.add_parser("list", help="list certificates and the days they have left")
    add_form(listed)
    _command(listed, show)
    renewed = verbs.add_parser("renew", help="issue certificates anew, with the same names and a new key")
    renewed.add_argument("names", nargs="*", metavar="NAME", help="which (default: all that end soon)")
    renewed.add_argument(
        "--within", type=parse.INT32, default=WITHIN_DAYS, metavar="DAYS", help=f"what is soon (default {WITHIN_DAYS})"
    )
    renewed.add_argument("--days", type=parse.INT32, default=365, help="how long they last (default 365)")
    _command(renewed, renew)


def _command(parser: argparse.ArgumentParser, work: Work) -> None:
    parser.add_argument("--dir", type=Path, help="folder of the authority (default: ca, in the folder of all stacks)")
    parser.set_defaults(run=lambda args: guarded(lambda: work(_authority(args), args)))


def _authority(args: argparse.Namespace) -> Authority:
    from datetime import UTC, datetime

    from lamina_cli.authority import Authority

    folder: Path = args.dir if args.dir is not None else home.home() / "ca"
    return Authority(folder.absolute(), datetime.now(UTC))


def init(authority: Authority, args: argparse.Namespace) -> int:
    """Makes the authority."""
    path = authority.init(args.name, args.days)
    print(f"{path}  give it to all; its key, {authority.key}, to nobody")
    return 0


def issue(authority: Authority, args: argparse.Namespace) -> int:
    """Issues one certificate."""
    print(f"{authority.issue(args.name, args.san, args.days)}  for --tls-dir")
    return 0


def renew(authority: Authority, args: argparse.Namespace) -> int:
    """Issues certificates anew: those named, or those that end soon."""
    rows = authority.list()
    soon = [row.name for row in rows[1:] if row.days_left < args.within]
    for name in args.names or soon:
        print(f"{authority.renew(name, args.days)}  renewed; what uses it takes it at the next connection")
    if not args.names and not soon:
        print(f"nothing ends within {args.within} days")
    return 0


def show(authority: Authority, args: argparse.Namespace) -> int:
    """Lists the certificates."""
    rows = authority.list()
    if args.output == "json":
        printing.as_json([asdict(row) for row in rows])
        return 0
    heads = ("NAME", "KIND", "DAYS LEFT", "NOT BEFORE", "NOT AFTER", "SANS", "SERIAL", "PROBLEM")
    printing.table(
        heads,
        (
            (
                r.name,
                r.kind,
                r.days_left,
                r.not_before,
                r.not_after,
                ",".join(r.sans) or "-",
                r.serial,
                r.problem or "-",
            )
            for r in rows
        ),
    )
    return 0
