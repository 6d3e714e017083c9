"""Writes the RPC reference from the contracts' descriptors: one page a package and an index of all calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from lamina.common.v1 import options_pb2

NOTICE = "<!-- Generated from the contracts by ./run gen: change the comments in protos/ instead. -->"

# Field numbers in descriptor.proto, of which the paths to comments are made.
SYNTAX, SERVICES, MESSAGES, ENUMS = 12, 6, 4, 5
METHODS, FIELDS, NESTED, NESTED_ENUMS, VALUES = 2, 2, 3, 4, 2

SCALARS = {
    value.number: value.name.removeprefix("TYPE_").lower()
    for value in FieldDescriptorProto.Type.DESCRIPTOR.values
    if value.name not in ("TYPE_MESSAGE", "TYPE_ENUM", "TYPE_GROUP")
}


@dataclass(frozen=True)
class Entry:
    """A named thing with its comment: an enum value, or a row of a table."""

    name: str
    comment: str


@dataclass(frozen=True)
class Method:
    """One RPC."""

    name: str
    comment: str
    request: str
    """Full name of the request message."""
    response: str
    request_streams: bool
    response_streams: bool
    planned: str = ""
    """Systems that the RPC waits for (`S-14 S-15`); empty when it is served."""


@dataclass(frozen=True)
class Service:
    """One service with its RPCs in the contract's order."""

    name: str
    comment: str
    methods: tuple[Method, ...]


@dataclass(frozen=True)
class Field:
    """One field of a message."""

    name: str
    number: int
    type: str
    """Scalar name, or full name of the message or enum."""
    label: str
    """`repeated`, `optional`, `one of NAME`, or nothing."""
    comment: str


@dataclass(frozen=True)
class Message:
    """One message; `name` holds the names of those that enclose it: `Space.Segment`."""

    name: str
    comment: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Enum:
    """One enum; `name` holds the names of the messages that enclose it."""

    name: str
    comment: str
    values: tuple[Entry, ...]


@dataclass
class Package:
    """All that one protobuf package declares, over all of its files."""

    name: str
    comments: list[str] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    enums: list[Enum] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Name of the package's page: the package without the prefix that ours share."""
        return self.name.removeprefix("lamina.")


class Reader:
    """Reads one file's descriptor, and the comments that belong to its parts."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(location.path): (location.leading_comments or "\n\n".join(location.leading_detached_comments)).strip()
            for location in file.source_code_info.location
        }

    def comment(self, *path: int) -> str:
        """Returns the comment above the element at a path, without the indentation of its lines; or nothing."""
        return "\n".join(line.strip() for line in self._comments.get(path, "").splitlines())

    def services(self) -> Iterator[Service]:
        """Yields the file's services."""
        for i, service in enumerate(self._file.service):
            methods = tuple(
                self._method(method, self.comment(SERVICES, i, METHODS, j)) for j, method in enumerate(service.method)
            )
            yield Service(service.name, self.comment(SERVICES, i), methods)

    @staticmethod
    def _method(method: MethodDescriptorProto, comment: str) -> Method:
        return Method(
            method.name,
            comment,
            method.input_type.lstrip("."),
            method.output_type.lstrip("."),
            method.client_streaming,
            method.server_streaming,
            method.options.Extensions[options_pb2.planned],
        )

    def messages(self) -> Iterator[tuple[Message, tuple[int, ...], DescriptorProto]]:
        """Yields the file's messages with their paths, each before those that it encloses."""
        for i, message in enumerate(self._file.message_type):
            yield from self._nested("", message, (MESSAGES, i))

    def _nested(
        self, outer: str, message: DescriptorProto, path: tuple[int, ...]
    ) -> Iterator[tuple[Message, tuple[int, ...], DescriptorProto]]:
        name = f"{outer}{message.name}"
        fields = tuple(
            Field(f.name, f.number, type_name(f), label(f, message), self.comment(*path, FIELDS, i))
            for i, f in enumerate(message.field)
        )
        yield Message(name, self.comment(*path), fields), path, message
        for i, inner in enumerate(message.nested_type):
            yield from self._nested(f"{name}.", inner, (*path, NESTED, i))

    def enums(self) -> Iterator[Enum]:
        """Yields the file's enums: its own, then those that its messages enclose."""
        for i, enum in enumerate(self._file.enum_type):
            yield self._enum("", enum, (ENUMS, i))
        for message, path, descriptor in self.messages():
            for i, enum in enumerate(descriptor.enum_type):
                yield self._enum(f"{message.name}.", enum, (*path, NESTED_ENUMS, i))

    def _enum(self, outer: str, enum: EnumDescriptorProto, path: tuple[int, ...]) -> Enum:
        values = tuple(
            Entry(f"{value.name} = {value.number}", self.comment(*path, VALUES, i))
            for i, value in enumerate(enum.value)
        )
        return Enum(f"{outer}{enum.name}", self.comment(*path), values)


def type_name(f: FieldDescriptorProto) -> str:
    """Returns a field's type: a scalar's name, or the full name of a message or enum."""
    return SCALARS.get(f.type) or f.type_name.lstrip(".")


def label(f: FieldDescriptorProto, message: DescriptorProto) -> str:
    """Returns what surrounds a field's type: `repeated`, `optional`, the oneof it is part of, or nothing."""
    if f.label == FieldDescriptorProto.LABEL_REPEATED:
        return "repeated"
    if f.proto3_optional:
        return "optional"
    return f"one of {message.oneof_decl[f.oneof_index].name}" if f.HasField("oneof_index") else ""


def packages(image: FileDescriptorSet, own: Set[str]) -> list[Package]:
    """Returns the packages that our own files declare, in alphabetical order."""
    found: dict[str, Package] = {}
    for file in sorted(image.file, key=lambda file: file.name):
        if file.name in own:
            package = found.setdefault(file.package, Package(file.package))
            reader = Reader(file)
            package.comments.append(reader.comment(SYNTAX))
            package.services.extend(reader.services())
            package.messages.extend(message for message, _, _ in reader.messages())
            package.enums.extend(reader.enums())
    return [found[name] for name in sorted(found)]


def cell(text: str) -> str:
    """Returns a comment as the content of one table cell."""
    return re.sub(r"\s*\n\s*", " ", text.strip()).replace("|", "\\|")


def link(name: str, package: str) -> str:
    """Returns a reference to a type: a link when it is ours, its bare name when it is a scalar or somebody else's."""
    owner, local = split(name)
    if owner == package:
        return f"[{local}](#{anchor(local)})"
    if owner.startswith("lamina."):
        title = owner.removeprefix("lamina.")
        return f"[{title}.{local}]({title}.md#{anchor(local)})"
    return f"`{name}`"


def split(name: str) -> tuple[str, str]:
    """Splits a full type name into package and local name: packages are lower-case, types are not."""
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part[:1].isupper()), 0)
    return ".".join(parts[:first]), ".".join(parts[first:])


def anchor(heading: str) -> str:
    """Returns the fragment under which a page shows a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def page(package: Package) -> str:
    """Returns the page of one package."""
    lines = [NOTICE, "", f"# {package.name}", "", *paragraphs(package.comments)]
    for service in package.services:
        lines += [f"## Service {service.name}", "", *paragraphs([service.comment])]
        for method in service.methods:
            lines += [f"### {service.name}.{method.name}", "", signature(method, package.name), ""]
            lines += paragraphs([f"*Not served yet: waits for {method.planned}.*" if method.planned else ""])
            lines += paragraphs([method.comment])
    if package.messages:
        lines += ["## Messages", ""]
    for message in package.messages:
        lines += [f"### {message.name}", "", *paragraphs([message.comment]), *field_table(message, package.name)]
    if package.enums:
        lines += ["## Enums", ""]
    for enum in package.enums:
        rows = [f"| `{value.name}` | {cell(value.comment)} |" for value in enum.values]
        lines += [f"### {enum.name}", "", *paragraphs([enum.comment]), "| value | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def paragraphs(comments: Sequence[str]) -> list[str]:
    """Returns comments as lines of a page, each with an empty line behind it; empty comments leave no trace."""
    return [line for comment in comments if comment for line in (comment, "")]


def signature(method: Method, package: str) -> str:
    """Returns how an RPC is called, on one line."""
    request = ("stream " if method.request_streams else "") + link(method.request, package)
    response = ("stream " if method.response_streams else "") + link(method.response, package)
    return f"**{method.name}**({request}) → {response}"


def field_table(message: Message, package: str) -> list[str]:
    """Returns the table of a message's fields; nothing for a message without fields."""
    if not message.fields:
        return []
    rows = [
        f"| `{f.name}` | {f.label + ' ' if f.label else ''}{link(f.type, package)} | {f.number} | {cell(f.comment)} |"
        for f in message.fields
    ]
    return ["| field | type | number | meaning |", "|---|---|---|---|", *rows, ""]


def first_sentence(comment: str) -> str:
    """Returns the first sentence of a comment."""
    return re.split(r"(?<=[.:])\s", cell(comment), maxsplit=1)[0].rstrip(":")


def index(found: Sequence[Package]) -> str:
    """Returns the index of all calls."""
    lines = [
        NOTICE,
        "",
        "# RPC reference",
        "",
        "Every call that Lamina serves, by package. The pages say what each one does, with which messages, and how it"
        " fails.",
        "",
    ]
    for package in found:
        if not package.services:
            continue
        lines += [f"## [{package.name}](rpc/{package.title}.md)", "", "| call | what it does |", "|---|---|"]
        for service in package.services:
            for method in service.methods:
                target = f"rpc/{package.title}.md#{anchor(f'{service.name}.{method.name}')}"
                lines.append(f"| [{service.name}.{method.name}]({target}) | {first_sentence(method.comment)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
