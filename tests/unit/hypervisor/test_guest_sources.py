"""The guest kernel's sources: what each file may know of the others."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

KERNEL = Path(__file__).parents[3] / "guests" / "kernel"
INCLUDE = re.compile(r'^#include "(\w+)\.h"$', re.MULTILINE)


def test_the_files_of_the_guest_kernel_include_one_another_in_one_direction() -> None:
    """A header and the sources of its name count as one; `static_order` refuses a circle."""
    graph: dict[str, set[str]] = {}
    for path in sorted(KERNEL.iterdir()):
        graph.setdefault(path.stem, set()).update(set(INCLUDE.findall(path.read_text())) - {path.stem})
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("boot") < order.index("paging") < order.index("shell") < order.index("kernel")
