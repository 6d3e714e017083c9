"""One search for bytes that break one parser, guided by coverage. It never comes back: libFuzzer ends the process.

    python -m lamina_tools.fuzz_child MODULE NAME [FLAG OF LIBFUZZER ...]

MODULE holds the table `PARSERS` of (name, check, seeds). Source: https://github.com/google/atheris, libFuzzer.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import atheris

INSTRUMENTED = (
    "lamina_net", "lamina_vswitch.domain", "lamina_hypervisor.domain", "lamina_container_runtime.domain",
    "lamina_orchestrator.domain", "lamina_hardware.domain.nic",
)  # fmt: skip
"""Packages whose branches guide the search: parsers. Compiled functions must not be among them."""


def others() -> list[str]:
    """Returns the modules beside those packages: atheris takes or leaves whole distributions but for single modules."""
    found = []
    for top in sorted({name.partition(".")[0] for name in INSTRUMENTED}):
        spec = importlib.util.find_spec(top)
        assert spec is not None and spec.submodule_search_locations
        root = Path(spec.submodule_search_locations[0])
        for file in sorted(root.rglob("*.py")):
            name = ".".join([top, *file.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
            if not any(name == each or name.startswith(f"{each}.") for each in INSTRUMENTED):
                found.append(name)
    return found


def main(module: str, name: str, flags: list[str]) -> None:
    """Searches until a flag says stop or a check fails."""
    tops = sorted({each.partition(".")[0] for each in (*INSTRUMENTED, module)} - {"tests"})
    with atheris.instrument_imports(include=tops, exclude=others()):
        table = importlib.import_module(module).PARSERS
    (check,) = (each.check for each in table if each.name == name)
    atheris.Setup([sys.argv[0], *flags], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
