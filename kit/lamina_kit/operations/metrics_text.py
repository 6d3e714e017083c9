"""The text format of Prometheus, version 0.0.4. Pure.

Source: https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from lamina_kit.telemetry.metrics import Distribution, Family, Labels

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(families: Iterable[Family]) -> str:
    """Returns families as text, in their order, each with its HELP and TYPE line."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def number(value: int | float, scale: int = 1) -> str:
    """Returns `value`/`scale` in the shortest exact form; `scale` is a power of ten."""
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "+Inf" if value > 0 else "-Inf"
        return repr(value / scale) if scale != 1 else repr(value)
    if scale == 1:
        return str(value)
    whole, rest = divmod(abs(value), scale)
    digits = str(scale + rest)[1:].rstrip("0")
    return ("-" if value < 0 else "") + str(whole) + (f".{digits}" if digits else "")


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped(family.help)}"
    yield f"# TYPE {family.name} {family.kind}"
    for sample in family.samples:
        yield f"{family.name}{_labels(sample.labels)} {number(sample.value, family.scale)}"
    for found in family.distributions:
        yield from _histogram(family, found)


def _histogram(family: Family, found: Distribution) -> Iterator[str]:
    below = 0
    for bound, count in zip(family.bounds, found.counts, strict=False):
        below += count
        yield f"{family.name}_bucket{_labels(found.labels, number(bound, family.scale))} {below}"
    yield f"{family.name}_bucket{_labels(found.labels, '+Inf')} {found.count}"
    yield f"{family.name}_sum{_labels(found.labels)} {number(found.sum, family.scale)}"
    yield f"{family.name}_count{_labels(found.labels)} {found.count}"


def _labels(labels: Labels, bound: str = "") -> str:
    pairs = [f'{name}="{_escaped(value, quoted=True)}"' for name, value in labels]
    if bound:
        pairs.append(f'le="{bound}"')
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text
