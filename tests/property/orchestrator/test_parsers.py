"""Whatever text arrives, a parser returns a value or refuses it in its own words."""

from __future__ import annotations

import contextlib
import json
from fractions import Fraction
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina_kit.errors import InvalidArgument
from lamina_orchestrator.domain.admission.chain import shaped
from lamina_orchestrator.domain.kinds.kinds import DEPLOYMENT, POD
from lamina_orchestrator.domain.kinds.quantity import NANO, canonical_quantity, parse_quantity
from lamina_orchestrator.domain.objects.manifest import parse_json, parse_manifest
from lamina_orchestrator.domain.objects.patch import merge_patch, three_way
from lamina_orchestrator.domain.objects.selectors import parse_field_selector, parse_label_selector

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(st.text("abc", min_size=1, max_size=2), values, max_size=4)
yamlish = st.text(st.sampled_from("ab1:-[]{}&*<>!?|#'\"%@,. \n\t~=éx"), max_size=80)


@given(text=st.one_of(yamlish, st.text(max_size=60)))
@settings(max_examples=300)
def test_any_text_is_read_or_refused(text: str) -> None:
    """Manifests, JSON and selectors end in a value or in InvalidArgument, never in another error."""
    for parse in (
        parse_manifest,
        parse_json,
        parse_label_selector,
        lambda given: parse_field_selector(given, POD),
    ):
        with contextlib.suppress(InvalidArgument):  # a refusal is one of the two right answers
            assert parse(text) is not None or text.strip() == "null"


@given(value=objects)
def test_json_of_others_is_read(value: dict[str, Any]) -> None:
    """Objects written by another JSON library read back equal."""
    assert parse_json(json.dumps(value)) == value


words = st.text("abxyzé:#-{}[],&*!|>'\"%@ \n", max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@given(value=st.dictionaries(words, plain, min_size=1, max_size=4))
def test_yaml_of_others_is_read(value: dict[str, Any]) -> None:
    """Objects written by another YAML library read back equal, whatever its quoting and block styles."""
    assert parse_manifest(yaml.safe_dump(value)) == [value]
    assert parse_manifest(yaml.safe_dump(value, default_flow_style=True, width=20)) == [value]


@given(value=objects)
@settings(max_examples=200)
def test_any_object_is_checked_or_refused(value: dict[str, Any]) -> None:
    """Anything in the place of an object or its spec is refused with field paths, never with another error."""
    base = {"metadata": {"name": "x"}, "spec": value}
    for kind in (POD, DEPLOYMENT):
        for candidate in (base, value, {**base, "metadata": value}):
            with contextlib.suppress(InvalidArgument):  # a refusal is one of the two right answers
                assert shaped(kind, candidate, "default")["metadata"]["namespace"]


suffixes = st.sampled_from(["", "m", "u", "n", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-2"])
FACTORS = {
    "": Fraction(1),
    "m": Fraction(1, 1000),
    "u": Fraction(1, 10**6),
    "n": Fraction(1, 10**9),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "e3": Fraction(1000),
    "E-2": Fraction(1, 100),
}


@given(whole=st.integers(0, 10**6), digits=st.text("0123456789", max_size=6), suffix=suffixes)
def test_quantities_are_exact(whole: int, digits: str, suffix: str) -> None:
    """A quantity is its exact value rounded up to a nano-unit, and its canonical form has the same value."""
    text = f"{whole}.{digits}{suffix}" if digits else f"{whole}{suffix}"
    exact = Fraction(f"{whole}.{digits or 0}") * FACTORS[suffix] * NANO
    assert parse_quantity(text) == -(-exact.numerator // exact.denominator)
    again = canonical_quantity(text)
    binary_whole = suffix in ("Ki", "Mi", "Gi") and parse_quantity(text) >= 1024 * NANO
    rounded = -(-parse_quantity(text) // NANO) * NANO if binary_whole else parse_quantity(text)
    assert parse_quantity(again) == rounded
    assert canonical_quantity(again) == again


@given(last=objects, wanted=objects, live=objects)
def test_apply_reaches_a_fixed_point(last: dict[str, Any], wanted: dict[str, Any], live: dict[str, Any]) -> None:
    """After an apply the object says all that the manifest says, and applying again changes nothing."""
    once = three_way(last, wanted, live)
    assert three_way(wanted, wanted, once) == once
    assert three_way(None, wanted, once) == once


@given(target=objects, patch=objects)
def test_merge_patch_is_idempotent(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """A merge patch applied twice is a merge patch applied once."""
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
