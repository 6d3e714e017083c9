"""`python -m lamina_tools.guide PAGE …`: runs the commands of pages and prints them with what they print here.

For who writes a page: the output can be taken over as it is. `tests/integration/guide` compares.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from lamina_tools.guide.blocks import blocks
from lamina_tools.guide.session import PORTS, Session, lacking, wants_root


def main() -> None:
    """Runs each page in a folder of its own."""
    for page in sys.argv[1:]:
        with tempfile.TemporaryDirectory(prefix="lamina-guide-") as folder:
            apart = wants_root(blocks(Path(page).read_text()))
            session = Session(Path(folder), 32000 + os.getpid() % 200 * PORTS, apart)
            try:
                _show(session, page)
            finally:
                session.close()


def _show(session: Session, page: str) -> None:
    for block in blocks(Path(page).read_text()):
        print(f"── {page}:{block.line} {lacking(block)}")
        for step in () if lacking(block) else block.steps:
            status, printed, complained = session.run(step)
            print(f"$ {step.command}\n{printed}", end="", flush=True)
            if status:
                print(f"{complained}(status {status})", flush=True)


main()
