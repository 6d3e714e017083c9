"""Rules that hold the contracts and the code of the layers together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from lamina_tools.rpc_reference import Package
from lamina_tools.style.layers import reasons
from lamina_tools.style.source import Source, dotted

CODES = re.compile(
    r"\b(CANCELLED|INVALID_ARGUMENT|DEADLINE_EXCEEDED|NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|RESOURCE_EXHAUSTED"
    r"|FAILED_PRECONDITION|ABORTED|OUT_OF_RANGE|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS|UNAUTHENTICATED)\b"
)
"""Names of the codes with which a call can fail."""

WITHOUT_ERRORS = re.compile(r"(?i)\b(errors: none|never fails|cannot fail|has no errors)\b|errors: as `[\w.]+`")
"""How a comment says that a call cannot fail, or fails as another one does."""


def rpcs_say_how_they_fail(packages: Iterable[Package]) -> Iterator[str]:
    """Yields the RPCs whose comment names no code of failure and does not say that there is none."""
    for package in packages:
        for service in package.services:
            for method in service.methods:
                if not CODES.search(method.comment) and not WITHOUT_ERRORS.search(method.comment):
                    yield f"{package.name}.{service.name}.{method.name} does not say how it fails ('Errors: …')"


def served(sources: Iterable[Source]) -> dict[str, set[str]]:
    """Returns which methods each servicer class defines, by service: `{"Spaces": {"CreateSpace", …}}`.

    A servicer that inherits from another class of ours has its methods too.
    """
    classes = {node.name: node for source in sources for node in source.nodes if isinstance(node, ast.ClassDef)}
    found: dict[str, set[str]] = {}
    for node in classes.values():
        for service in _services(node, classes):
            found.setdefault(service, set()).update(_methods(node, classes))
    return found


def _services(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    for base in node.bases:
        name = dotted(base).rpartition(".")[2]
        if name in classes and name != node.name:  # a servicer may be called as the generated one that it extends
            yield from _services(classes[name], classes)
        elif name.endswith("Servicer"):
            yield name.removesuffix("Servicer")


def _methods(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> set[str]:
    own = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {
        target.id
        for item in node.body
        if isinstance(item, ast.Assign)
        for target in item.targets
        if isinstance(target, ast.Name)
    }
    for base in node.bases:
        if (name := dotted(base).rpartition(".")[2]) in classes and name != node.name:
            own |= _methods(classes[name], classes)
    return own


def contract_is_served(package: Package, sources: Iterable[Source]) -> Iterator[str]:
    """Yields the RPCs of a package that no servicer defines though they are not planned, and the other way."""
    methods = served(sources)
    for service in package.services:
        defined = methods.get(service.name, set())
        for method in service.methods:
            name = f"{package.name}.{service.name}.{method.name}"
            if method.planned and method.name in defined:
                yield f"{name}: marked as planned, but its servicer defines it: callers would never reach it"
            elif not method.planned and method.name not in defined:
                yield f"{name}: no servicer defines it, and it is not marked as planned"


def reasons_are_promised(texts: Iterable[str], sources: Iterable[Source]) -> Iterator[str]:
    """Yields the reasons that a layer's code gives but that neither its contracts' comments nor its README name.

    Defects of our own (`Internal`) are no promise.
    """
    promised = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|(?<=`)[A-Z]{4,}(?=`)", "\n".join(texts)))
    for source in sources:
        for call, reason in reasons(source):
            if reason not in promised and dotted(call.func).rpartition(".")[2] != "Internal":
                yield source.finding(call, f"the reason {reason} stands neither in the contracts nor in the README")
