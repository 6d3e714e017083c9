"""Fields that the contract has and no engine obeys: what is planned is refused, what is refused is planned."""

from __future__ import annotations

import re
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from lamina.container_runtime.v1 import container_runtime_pb2 as pb

from lamina_container_runtime import convert, unserved
from lamina_container_runtime.domain.names import Names
from lamina_kit.errors import Unimplemented
from lamina_tools import contracts, rpc_reference
from lamina_tools.tree import ROOT

TABLES: dict[str, tuple[Any, dict[str, str]]] = {
    "Sandbox": (pb.Sandbox, unserved.SANDBOX),
    "Container": (pb.Container, unserved.CONTAINER),
    "Resources": (pb.Resources, unserved.RESOURCES),
}


def planned_fields(message: str) -> dict[str, str]:
    """Returns the fields of a message whose comment says that they are planned, with the systems that they wait for."""
    found = rpc_reference.packages(contracts.image(ROOT), set(contracts.proto_files(ROOT)))
    package = next(package for package in found if package.name == "lamina.container_runtime.v1")
    fields = next(entry.fields for entry in package.messages if entry.name == message)
    matches = ((field.name, re.match(r"Planned \(([^)]+)\)\.", field.comment)) for field in fields)
    return {name: match[1] for name, match in matches if match}


def with_field(kind: Any, name: str) -> Any:
    """Returns a message of a kind in which one field is set."""
    message, field = kind(), kind.DESCRIPTOR.fields_by_name[name]
    if field.message_type and field.is_repeated:
        getattr(message, name).add()
    elif field.message_type:
        getattr(message, name).SetInParent()
    else:
        values = {FieldDescriptor.CPPTYPE_STRING: "x", FieldDescriptor.CPPTYPE_BOOL: True}
        setattr(message, name, values.get(field.cpp_type, 1))
    return message


def as_request(kind: str, message: Any) -> None:
    """Reads a message where a request would carry it."""
    if kind == "Sandbox":
        convert.sandbox_spec(message)
    elif kind == "Container":
        convert.container_spec(message, Names("h1"))
    else:
        convert.sandbox_spec(pb.Sandbox(metadata=pb.SandboxMetadata(name="s"), resources=message))


@pytest.mark.parametrize("kind", TABLES)
def test_the_contract_says_which_fields_are_refused(kind: str) -> None:
    """The fields that the contract calls planned are the ones that the service refuses, for the same systems."""
    assert planned_fields(kind) == TABLES[kind][1]


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, (_, table) in TABLES.items() for field in table])
def test_a_planned_field_is_refused(kind: str, field: str) -> None:
    """A request that sets a planned field fails with NOT_SERVED_YET and names the field and its systems."""
    with pytest.raises(Unimplemented) as refused:
        as_request(kind, with_field(TABLES[kind][0], field))
    assert refused.value.reason == "NOT_SERVED_YET"
    assert refused.value.metadata["field"].endswith(f".{field}")
    assert refused.value.metadata["systems"] == TABLES[kind][1][field]


def test_output_fields_are_ignored() -> None:
    """What only answers carry does not keep a sandbox that was read from being created anew."""
    message = pb.Sandbox(metadata=pb.SandboxMetadata(name="s"), addresses=["10.0.0.2"], revision=7)
    assert convert.sandbox_spec(message).metadata.name == "s"
