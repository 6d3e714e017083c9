"""Registries: what is shown, in which order, and how little can go wrong with it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lamina_kit.operations.metrics_text import number, render
from lamina_kit.telemetry import metrics
from lamina_kit.telemetry.metrics import (
    MAX_SERIES,
    OTHER,
    Family,
    Registry,
    Sample,
    by_label,
    counter,
    gauge,
    merged,
    tally,
)


def shown(registry: Registry) -> list[str]:
    """Returns the lines of a registry's text that hold values, without those of its own failures."""
    lines = render(registry.families()).splitlines()
    return [line for line in lines if not line.startswith("#") and "metrics_failures" not in line]


def test_values_come_ordered_by_name_and_labels_whatever_order_they_were_made_in() -> None:
    """Two registries that were filled in different orders show the same text, with the constant labels on each line."""
    texts = []
    for order in (("b", "a"), ("a", "b")):
        registry = Registry(layer="mmu", host="h1")
        for name in order:
            made = registry.counter(f"lamina_{name}_total", "Counts.", "kind")
            for kind in order:
                made.add(kind, amount=2)
        texts.append(shown(registry))
    assert texts[0] == texts[1]
    assert texts[0] == [
        f'lamina_{name}_total{{host="h1",kind="{kind}",layer="mmu"}} 2' for name in "ab" for kind in "ab"
    ]


def test_a_histogram_counts_a_value_on_a_bound_below_it() -> None:
    """Buckets are cumulative, `le` includes the bound, and the sum is exact to the nanosecond."""
    registry = Registry()
    took = registry.histogram("lamina_wait_seconds", "Waits.", bounds=(1_000_000, 1_000_000_000))
    for value in (1_000_000, 1_000_001, 1_000_000_001):
        took.record(value)
    assert shown(registry) == [
        'lamina_wait_seconds_bucket{le="0.001"} 1',
        'lamina_wait_seconds_bucket{le="1"} 2',
        'lamina_wait_seconds_bucket{le="+Inf"} 3',
        "lamina_wait_seconds_sum 1.002000002",
        "lamina_wait_seconds_count 3",
    ]


def test_a_gauge_shows_the_latest_value() -> None:
    """Setting replaces."""
    registry = Registry()
    made = registry.gauge("lamina_level", "Level.", "tank")
    made.set(1, "left")
    made.set(0.5, "left")
    assert shown(registry) == ['lamina_level{tank="left"} 0.5']


def test_labels_without_end_do_not_fill_memory_or_the_page() -> None:
    """Beyond the limit values are added up under one label, for own counters and for sources alike; none is lost."""
    registry = Registry()
    made = registry.counter("lamina_made_total", "Counts.", "name")
    for index in range(MAX_SERIES * 2):
        made.add(f"n{index:05}")
    registry.add(lambda: [by_label("lamina_seen", "Seen.", "name", {f"n{i:05}": 1 for i in range(MAX_SERIES + 9)})])
    found = {family.name: family for family in registry.families()}
    for name, expected in (("lamina_made_total", MAX_SERIES * 2), ("lamina_seen", MAX_SERIES + 9)):
        family = found[name]
        assert len(family.samples) <= MAX_SERIES
        assert sum(sample.value for sample in family.samples) == expected
        assert dict(family.samples[0].labels)["name"] == OTHER


def test_the_surplus_of_a_layer_keeps_its_layer_and_host() -> None:
    """What two hosts have beyond the limit stays two samples: one name with the same labels twice is no metric."""
    parts = []
    for host in ("h1", "h2"):
        registry = Registry(layer="mmu", host=host)
        registry.add(lambda: [by_label("lamina_seen", "Seen.", "name", {f"n{i:05}": 1 for i in range(MAX_SERIES + 9)})])
        parts.append(((), registry.families()))
    seen = next(family for family in merged(parts) if family.name == "lamina_seen")
    surplus = [dict(sample.labels) for sample in seen.samples if dict(sample.labels)["name"] == OTHER]
    assert surplus == [{"host": host, "layer": "mmu", "name": OTHER} for host in ("h1", "h2")]


def test_a_long_label_value_is_cut() -> None:
    """A value of any length takes bounded room."""
    registry = Registry()
    registry.counter("lamina_made_total", "Counts.", "name").add("x" * 10_000)
    assert len(registry.families()[0].samples[0].labels[0][1]) == metrics.MAX_VALUE


def test_the_wrong_number_of_labels_is_a_mistake_of_the_caller() -> None:
    """Values without a name, or names without a value, are refused at once."""
    with pytest.raises(ValueError, match="2 label values for 1"):
        Registry().counter("lamina_made_total", "Counts.", "name").add("a", "b")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("lamina_x", "counter"), ("lamina_x_total", "gauge"), ("Lamina", "gauge"), ("a-b", "gauge"), ("", "gauge")],
)
def test_a_name_against_the_rules_is_refused(name: str, kind: metrics.Kind) -> None:
    """Counters, and they alone, end in `_total`; names are lower-case words."""
    with pytest.raises(ValueError, match="is no name of a"):
        Family(name, kind, "Text.")


def test_bounds_that_do_not_rise_are_refused() -> None:
    """A histogram whose buckets overlap would count wrong."""
    with pytest.raises(ValueError, match="do not rise"):
        Registry().histogram("lamina_wait_seconds", "Waits.", bounds=(1, 1))


def test_a_source_that_fails_hides_no_other() -> None:
    """The failure is counted, and what the other sources tell is shown."""

    def broken() -> Iterable[Family]:
        raise RuntimeError("no")

    registry = Registry(layer="mmu")
    registry.add(broken)
    registry.add(lambda: [gauge("lamina_level", "Level.", 3)])
    text = render(registry.families())
    assert 'lamina_level{layer="mmu"} 3' in text
    assert 'lamina_metrics_failures_total{layer="mmu"} 1' in text


def test_registries_are_merged_by_name() -> None:
    """Two layers' values of one name stand under one heading; one name cannot be of two kinds."""
    both = merged(
        [((("host", "h2"),), [gauge("lamina_n", "N.", 1)]), ((("host", "h1"),), [gauge("lamina_n", "N.", 2)])]
    )
    assert render(both) == '# HELP lamina_n N.\n# TYPE lamina_n gauge\nlamina_n{host="h1"} 2\nlamina_n{host="h2"} 1\n'
    with pytest.raises(ValueError, match="is a gauge and a histogram"):
        merged([((), [gauge("lamina_n", "N.", 1)]), ((), [Family("lamina_n", "histogram", "N.", bounds=(1,))])])


def test_a_cleared_registry_keeps_its_labels_and_no_sources() -> None:
    """What is gone is not asked any more."""
    registry = Registry(layer="mmu")
    registry.add(lambda: [gauge("lamina_level", "Level.", 3)])
    registry.clear()
    assert [family.name for family in registry.families()] == ["lamina_metrics_failures_total"]


def test_a_tally_shows_known_keys_that_do_not_occur() -> None:
    """A state that nothing is in counts 0."""
    assert tally(["b", "a", "b"], ("a", "c")) == {"a": 1, "c": 0, "b": 2}


def test_text_escapes_what_would_break_it() -> None:
    """Backslash, line feed and quote: all three in values, the first two in help texts."""
    family = Family("lamina_n", "gauge", 'a\\b\n"c"', (Sample((("k", 'x\\y\n"z"'),), 1),))
    assert render([family]) == (
        '# HELP lamina_n a\\\\b\\n"c"\n# TYPE lamina_n gauge\nlamina_n{k="x\\\\y\\n\\"z\\""} 1\n'
    )


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (0, 10**9, "0"),
        (1_500_000_000, 10**9, "1.5"),
        (-1, 10**9, "-0.000000001"),
        (2**63, 1, "9223372036854775808"),
        (0.1, 1, "0.1"),
        (float("inf"), 1, "+Inf"),
        (float("-inf"), 1, "-Inf"),
        (float("nan"), 1, "NaN"),
    ],
)
def test_numbers_are_exact(value: float, scale: int, text: str) -> None:
    """Integers keep all digits, nanoseconds become seconds without rounding, floats are as Python writes them."""
    assert number(value, scale) == text


def test_counters_of_one_value() -> None:
    """The helpers make families of their kind."""
    assert counter("lamina_n_total", "N.", 1).kind == "counter"
