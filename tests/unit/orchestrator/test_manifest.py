"""Manifests: what is read, and what is refused before it can do harm."""

from __future__ import annotations

import pytest

from lamina_kit.errors import InvalidArgument
from lamina_orchestrator.domain.kinds.yaml_text import Decimal
from lamina_orchestrator.domain.objects.manifest import parse_json, parse_manifest


def test_documents_and_lists_are_objects() -> None:
    """Documents come in order, empty ones are left out, and a List stands for its items."""
    text = "a: 1\n---\n---\nkind: List\nitems:\n- b: 2\n- kind: List\n  items: [{c: 3}]\n"
    assert parse_manifest(text) == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_json_is_read_as_json() -> None:
    """JSON is read by its own rules, and a YAML flow mapping by YAML's."""
    assert parse_manifest('\t{"a": 1}') == [{"a": 1}]
    assert parse_manifest("{a: b}") == [{"a": "b"}]


def test_scalars_are_those_of_kubernetes() -> None:
    """Booleans are YAML 1.1's, dates and sexagesimals stay text, octals count, fractions stay exact."""
    (value,) = parse_manifest("{a: yes, b: 2001-01-01, c: 1:30, d: 0644, e: 0.1, f: '1', g: ~, h: 0x1F, i: -7}")
    assert value == {
        "a": True, "b": "2001-01-01", "c": "1:30", "d": 420, "e": "0.1", "f": "1", "g": None, "h": 31, "i": -7,
    }  # fmt: skip
    assert isinstance(value["e"], Decimal)


def test_aliases_and_merges() -> None:
    """An alias stands for its anchor's value, and << merges behind what is written."""
    (value,) = parse_manifest("a: &x {k: 1, z: 2}\nb: *x\nc: {<<: *x, z: 3}\n")
    assert value["b"] == value["a"]
    assert value["c"] == {"k": 1, "z": 3}


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "more than 100000 values"),
        ("[" * 100_000, "nest"),
        ('{"a":' * 3000 + "1" + "}" * 3000, "levels deep"),
        ("a:\n" + "".join(f"{' ' * i}- \n" for i in range(1, 3)) + "? [1]\n: 2", "line"),
        ("a: &a [*a]", "alias *a stands before its anchor ends"),
        ("a: *nobody", "alias"),
        ("a: 1\na: 2", 'line 2, column 1: field "a" is given twice'),
        ('{"a": 1, "a": 2}', 'field "a" is given twice'),
        ("a: !!python/object:os.system x", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("{1: 2}", "a field name has to be a string"),
        ("a: [1,\n b: }", "line 2"),
        ("- 1", "document 1 is not an object"),
        ("kind: List\nitems: 5", "items are not a list"),
        ("a: \x00", "not allowed"),
        ("\ud800", "surrogate"),
        ('{"a": NaN}', "NaN"),
        ("x" * ((1 << 20) + 1), "bytes"),
        ("---\n".join(["a: 1\n"] * 1001), "more than 1000"),
        ("", "holds no object"),
        ("a: {<<: 5}", "<< merges mappings only"),
    ],
)
def test_bad_manifests_are_refused(text: str, words: str) -> None:
    """Bombs, depth, duplicates, tags and broken text are refused with the place where that is known."""
    with pytest.raises(InvalidArgument) as caught:
        parse_manifest(text)
    assert caught.value.reason == "MANIFEST_MALFORMED"
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "9" * 50, "[" * 5000 + "]" * 5000, "[" + "1," * 100_001 + "1]"])
def test_bad_json_is_refused(text: str) -> None:
    """Broken, deep and huge JSON is refused."""
    with pytest.raises(InvalidArgument) as caught:
        parse_json(text)
    assert caught.value.reason == "MANIFEST_MALFORMED"
