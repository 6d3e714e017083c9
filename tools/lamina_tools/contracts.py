"""The protobuf contracts: which there are, the Python code made from them, and their descriptor images.

An *image* is a `FileDescriptorSet`. buf cannot fetch the imports of a contract when no registry of schemas is within
reach, so it is given images, which protoc makes from what is installed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from lamina_tools.tree import ROOT, files

PROTOS = Path("protos")
GENERATED = PROTOS / "gen"
IMAGE = PROTOS / "lamina.binpb"
FROZEN = PROTOS / "FROZEN"

PLUGINS = {"mypy": "main", "mypy_grpc": "grpc"}
"""protoc plugins that write the types, and the function of `mypy_protobuf.main` that each one is."""


class ContractsFailed(Exception):
    """protoc or buf refused the contracts; the message is what it said."""


def proto_files(root: Path = ROOT) -> list[str]:
    """Returns the contracts' paths as they import one another: relative to `protos`, in alphabetical order."""
    return [
        path.relative_to(PROTOS).as_posix()
        for path in files(root, str(PROTOS))
        if path.suffix == ".proto" and not path.is_relative_to(GENERATED)
    ]


def protoc(root: Path, *arguments: str) -> None:
    """Runs the pinned protoc; raises ContractsFailed with what it printed."""
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-Iprotos",
        f"-I{sysconfig.get_path('purelib')}",
        *arguments,
    ]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise ContractsFailed(done.stdout.strip())


def write_code(root: Path, out: Path) -> None:
    """Writes the Python code of all contracts, with types, below an existing folder.

    The packages are namespace packages, so that parts of `lamina` can come from several distributions; `py.typed` in
    each one that holds modules tells type checkers that an installed copy is typed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plugins = []
        for name, function in PLUGINS.items():
            # Started through this interpreter: a script in bin/ names its own by a path that moves with the checkout.
            script = Path(scratch) / f"protoc-gen-{name}"
            code = f"from mypy_protobuf.main import {function}; {function}()"
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}"\n')
            script.chmod(0o755)
            plugins.append(f"--plugin={script.name}={script}")
        protoc(
            root,
            *plugins,
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out={out}",
            f"--mypy_grpc_out=only_async,generate_concrete_servicer_stubs:{out}",
            *proto_files(root),
        )
    for folder in {path.parent for path in out.rglob("*.py")}:
        (folder / "py.typed").touch()


def describe(root: Path, names: Iterable[str]) -> FileDescriptorSet:
    """Returns the image of some contracts, ours or installed ones, with comments and with all that they import."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "image.binpb"
        protoc(root, "--include_imports", "--include_source_info", f"--descriptor_set_out={target}", *names)
        return FileDescriptorSet.FromString(target.read_bytes())


def image(root: Path = ROOT) -> FileDescriptorSet:
    """Returns the contracts as they stand in the tree, with their comments and with all that they import."""
    return describe(root, proto_files(root))


def own(whole: FileDescriptorSet, root: Path = ROOT) -> FileDescriptorSet:
    """Returns what of an image is ours, without comments: the part that the committed image holds.

    What is imported belongs to the installed packages and changes with them; a comment is no part of the contract.
    """
    ours = FileDescriptorSet()
    names = set(proto_files(root))
    for file in whole.file:
        if file.name in names:
            ours.file.add().CopyFrom(file)
            ours.file[-1].ClearField("source_code_info")
    return ours


def read_committed(root: Path = ROOT) -> FileDescriptorSet | None:
    """Returns the committed image, or None when there is none yet."""
    path = root / IMAGE
    return FileDescriptorSet.FromString(path.read_bytes()) if path.exists() else None


def buf(root: Path, command: str, subject: FileDescriptorSet, against: FileDescriptorSet | None = None) -> list[str]:
    """Runs `buf lint` or `buf breaking` on images; returns its findings, one a line, none when it is content."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "subject.binpb").write_bytes(subject.SerializeToString(deterministic=True))
        arguments = [str(Path(sys.executable).parent / "buf"), command, "subject.binpb"]
        if against is not None:
            (Path(scratch) / "against.binpb").write_bytes(against.SerializeToString(deterministic=True))
            arguments += ["--against", "against.binpb"]
        arguments += ["--config", str(root / "buf.yaml"), "--exclude-path", "google"]
        done = subprocess.run(arguments, cwd=scratch, capture_output=True, text=True)
    if done.returncode not in (0, 100):  # 100: there are findings
        raise ContractsFailed(f"buf {command} could not run: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.splitlines()


def breaking(root: Path, now: FileDescriptorSet, before: FileDescriptorSet) -> list[str]:
    """Returns in which ways the contracts of the tree break what the committed image promises."""
    held = {file.name for file in before.file}
    imports = sorted({name for file in before.file for name in file.dependency} - held)
    against = describe(root, imports) if imports else FileDescriptorSet()
    against.file.extend(before.file)
    return buf(root, "breaking", now, against)
