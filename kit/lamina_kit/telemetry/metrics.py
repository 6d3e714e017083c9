"""Numbers that a layer tells about itself: counters, gauges and histograms, in a registry a layer.

    state.metrics.add(self._families)                      # in a service's __init__: asked at each look

    def _families(self) -> Iterable[Family]:
        yield gauge("lamina_mmu_frames_free", "Free frames of RAM.", self.engine.memory().free)
        yield by_label("lamina_vms", "Virtual machines by state.", "state", {"running": 2, "stopped": 1})

What a layer counts anyway is asked for when somebody looks, and costs nothing otherwise. A `Counter` or `Histogram` of
the registry is for what nobody else counts. There is no global registry: stacks in one process do not mix. Looking
changes nothing, draws no ids and waits for nothing, so a run in virtual time is the same with and without it.

Rules: names are `lamina_…`, with the unit (`_bytes`, `_seconds`) and, for counters, `_total` at the end. Labels have
few values: states, reasons, methods; never names of objects. A family shows at most `MAX_SERIES` label sets; those
beyond are added up under the label value `_other`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lamina_kit.telemetry import log

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, ordered by name."""
Kind = Literal["counter", "gauge", "histogram"]

MAX_SERIES = 1000
OTHER = "_other"
MAX_VALUE = 128
"""Characters of a label's value; longer ones are cut."""
NS = 10**9
SECONDS = tuple(int(bound * NS) for bound in (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30))
"""Upper bounds of durations, in nanoseconds: two for each power of ten, from 0.1 ms to the default deadline."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,126}")


@dataclass(frozen=True)
class Sample:
    """One value of a counter or gauge."""

    labels: Labels
    value: int | float


@dataclass(frozen=True)
class Distribution:
    """One histogram: how many values fell under each bound and above the last one, and the sum of the values."""

    labels: Labels
    counts: tuple[int, ...]
    sum: int

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)


@dataclass(frozen=True)
class Family:
    """All values of one name. Values and `bounds` are in units of 1/`scale`: nanoseconds with 10⁹ show as seconds."""

    name: str
    kind: Kind
    help: str
    samples: tuple[Sample, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    bounds: tuple[int, ...] = ()
    scale: int = 1

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None or self.name.endswith("_total") != (self.kind == "counter"):
            raise ValueError(f"{self.name!r} is no name of a {self.kind}")


Source = Callable[[], Iterable[Family]]


def gauge(name: str, text: str, value: int | float) -> Family:
    """Returns a family of one value that goes up and down."""
    return Family(name, "gauge", text, (Sample((), value),))


def counter(name: str, text: str, value: int | float) -> Family:
    """Returns a family of one value that only grows, from 0 at the start of what counts it."""
    return Family(name, "counter", text, (Sample((), value),))


def by_label(name: str, text: str, label: str, values: Mapping[str, int | float], kind: Kind = "gauge") -> Family:
    """Returns a family with a value for each value of one label."""
    return Family(name, kind, text, tuple(Sample(((label, key),), value) for key, value in values.items()))


def tally(keys: Iterable[str], known: Sequence[str] = ()) -> dict[str, int]:
    """Counts equal keys; those `known` are there even when they do not occur, so that a graph falls to 0."""
    counts = dict.fromkeys(known, 0)
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return counts


class Counter:
    """Counts events by labels. `Registry.counter` makes one."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._family = Family(name, "counter", text)
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], int] = {}

    def add(self, *values: str, amount: int = 1) -> None:
        """Adds to the count under the values of the labels, in the order in which they were declared."""
        key = _room(self._values, values, len(self._labels))
        self._values[key] = self._values.get(key, 0) + amount

    def families(self) -> Iterable[Family]:
        """Yields what was counted."""
        yield replace(
            self._family,
            samples=tuple(Sample(_paired(self._labels, key), value) for key, value in self._values.items()),
        )


class Gauge:
    """Keeps the latest value by labels. `Registry.gauge` makes one."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._family = Family(name, "gauge", text)
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], int | float] = {}

    def set(self, value: int | float, *values: str) -> None:
        """Sets what is shown under the values of the labels."""
        self._values[_room(self._values, values, len(self._labels))] = value

    def families(self) -> Iterable[Family]:
        """Yields what was set."""
        yield replace(
            self._family,
            samples=tuple(Sample(_paired(self._labels, key), value) for key, value in self._values.items()),
        )


class Histogram:
    """Sorts values into fixed buckets by labels. `Registry.histogram` makes one.

    Values and bounds are integers in units of 1/`scale`; a value that equals a bound belongs below it.
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[int] = SECONDS, scale: int = NS
    ) -> None:
        if list(bounds) != sorted(set(bounds)) or not bounds:
            raise ValueError(f"the bounds of {name} do not rise")
        self._family = Family(name, "histogram", text, bounds=tuple(bounds), scale=scale)
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], list[int]] = {}

    def record(self, value: int, *values: str) -> None:
        """Counts one value under the values of the labels."""
        key = _room(self._values, values, len(self._labels))
        counts = self._values.get(key)
        if counts is None:
            counts = self._values[key] = [0] * (len(self._family.bounds) + 2)
        counts[bisect_left(self._family.bounds, value)] += 1
        counts[-1] += value

    def families(self) -> Iterable[Family]:
        """Yields the distributions."""
        yield replace(
            self._family,
            distributions=tuple(
                Distribution(_paired(self._labels, key), tuple(counts[:-1]), counts[-1])
                for key, counts in self._values.items()
            ),
        )


class Registry:
    """The numbers of one layer. `constant` labels stand on every value: `layer`, `host`."""

    def __init__(self, **constant: str) -> None:
        self.constant: Labels = tuple(sorted(constant.items()))
        self._sources: list[Source] = []
        self._failures = 0
        self._log = log.logger("metrics")

    def add(self, source: Source) -> None:
        """Has `source` asked at each look, in the order of the calls. It must not wait, block or change anything."""
        self._sources.append(source)

    def clear(self) -> None:
        """Forgets all sources: what they looked at is gone."""
        self._sources.clear()

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Makes a counter."""
        made = Counter(name, text, labels)
        self.add(made.families)
        return made

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Makes a gauge."""
        made = Gauge(name, text, labels)
        self.add(made.families)
        return made

    def histogram(
        self, name: str, text: str, *labels: str, bounds: Sequence[int] = SECONDS, scale: int = NS
    ) -> Histogram:
        """Makes a histogram."""
        made = Histogram(name, text, labels, bounds, scale)
        self.add(made.families)
        return made

    def families(self) -> list[Family]:
        """Returns everything, by name. A source that fails is left out, counted and logged: the others are shown."""
        found: list[Family] = []
        for source in self._sources:
            try:
                found += source()
            except Exception as error:
                self._failures += 1
                self._log.error("metrics.source_failed", source=getattr(source, "__qualname__", ""), exc_info=error)
        found.append(
            counter("lamina_metrics_failures_total", "Sources of metrics that failed when asked.", self._failures)
        )
        own = {name for name, _ in self.constant}
        return [_bounded(family, own) for family in merged([(self.constant, found)])]


def merged(parts: Iterable[tuple[Labels, Iterable[Family]]]) -> list[Family]:
    """Returns families of several registries as one list: each name once, ordered by name and then by labels.

    The labels of each part are added to its values. Raises `ValueError` when one name has two kinds.
    """
    heads: dict[str, Family] = {}
    samples: dict[str, list[Sample]] = {}
    distributions: dict[str, list[Distribution]] = {}
    for constant, families in parts:
        for family in families:
            name = family.name
            head = heads.setdefault(name, family)
            if (head.kind, head.scale, head.bounds) != (family.kind, family.scale, family.bounds):
                raise ValueError(f"{name} is a {head.kind} and a {family.kind}")
            values = (Sample(_with(each.labels, constant), each.value) for each in family.samples)
            samples.setdefault(name, []).extend(values)
            spread = (replace(each, labels=_with(each.labels, constant)) for each in family.distributions)
            distributions.setdefault(name, []).extend(spread)
    return [
        _ordered(replace(heads[name], samples=tuple(samples[name]), distributions=tuple(distributions[name])))
        for name in sorted(heads)
    ]


def _ordered(family: Family) -> Family:
    """Returns a family in the order of its labels."""
    return replace(
        family,
        samples=tuple(sorted(family.samples, key=lambda sample: sample.labels)),
        distributions=tuple(sorted(family.distributions, key=lambda found: found.labels)),
    )


def _bounded(family: Family, own: Collection[str]) -> Family:
    """Returns an ordered family of one registry with surplus samples added up under `_other`.

    Labels in `own` tell registries apart and keep their values: the surplus of two hosts is two samples.
    """
    samples = family.samples
    if len(samples) <= MAX_SERIES:
        return family
    rest = samples[MAX_SERIES - 1 :]
    other = tuple((label, value if label in own else OTHER) for label, value in rest[0].labels)
    added = Sample(other, sum(sample.value for sample in rest))
    return _ordered(replace(family, samples=(*samples[: MAX_SERIES - 1], added)))


def _with(labels: Labels, constant: Labels) -> Labels:
    """Returns labels with constant ones added where they say nothing."""
    return tuple(sorted({**dict(constant), **dict(labels)}.items())) if constant else labels


def _paired(labels: tuple[str, ...], values: tuple[str, ...]) -> Labels:
    return tuple(sorted(zip(labels, values, strict=True)))


def _room(known: Mapping[tuple[str, ...], object], values: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Returns under which label values to count: those given, cut, or `_other` when there are too many."""
    if len(values) != count:
        raise ValueError(f"{len(values)} label values for {count} labels")
    if values in known:
        return values
    values = tuple(value[:MAX_VALUE] for value in values)
    return values if values in known or len(known) < MAX_SERIES - 1 else (OTHER,) * count
