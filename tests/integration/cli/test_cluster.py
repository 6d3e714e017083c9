"""Manifests, programs and images of the user's, through the command line."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.integration import manifests

from lamina_cli.demo import images
from lamina_cli.guests.assets import asset

READY_TRIES = 200


@pytest.fixture(scope="module")
def hello(up: Any) -> Any:
    """A stack that has the images of the example programs."""
    for name in images.PROGRAMS:
        up.run("image", "build", str(asset(f"guests/{name}.c")))
    return up


def test_an_image_that_was_written_is_imported_again(hello: Any, tmp_path: Path) -> None:
    """The same program gives the same image, as a file and after an import."""
    archive = tmp_path / "image.tar"
    built = hello.json("image", "build", str(asset("guests/counter.c")), "-w", str(archive))
    imported = hello.json("image", "import", str(archive))
    assert [image["digest"] for image in built] == [image["digest"] for image in imported]


def until_pods(lamina: Any, count: int) -> list[str]:
    """Returns the names of the pods once `count` of them run and no others exist."""
    for _ in range(READY_TRIES):
        pods = lamina.json("get", "pods")
        running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
        if len(running) == len(pods) == count and not any(pod["metadata"].get("deletionTimestamp") for pod in pods):
            return [pod["metadata"]["name"] for pod in pods]
    raise AssertionError(f"{count} pods do not run: {json.dumps(pods)[:2000]}")


def until_said(lamina: Any, pod: str, text: str) -> None:
    """Waits until a pod's program has written a text: a pod runs before its program's first instruction."""
    assert any(text in lamina.run("logs", pod).stdout for _ in range(READY_TRIES)), f"{pod} does not say {text!r}"


def test_a_manifest_lives_through_apply_scale_and_delete(hello: Any) -> None:
    """apply, get, logs, scale and delete do on a manifest what they say."""
    manifest = str(asset("examples/hello.yaml"))
    assert "deployment/hello created" in hello.run("apply", "-f", manifest).stdout
    names = until_pods(hello, 3)
    assert "unchanged" in hello.run("apply", "-f", manifest).stdout
    for name in names:
        until_said(hello, name, name)
    assert "scaled to 1" in hello.run("scale", "deploy/hello", "--replicas", "1").stdout
    until_pods(hello, 1)
    hello.run("delete", "deploy/hello")
    until_pods(hello, 0)


def test_a_traced_apply_prints_as_a_tree(hello: Any) -> None:
    """`--trace` names the trace, and `trace` prints its spans."""
    done = hello.run("apply", "-f", str(asset("examples/hello.yaml")), "--trace", "--dry-run")
    trace_id = done.stderr.split()[1].rstrip(";")
    assert "ApplyObjects" in hello.run("trace", trace_id).stdout


def test_a_malformed_manifest_names_its_field(hello: Any) -> None:
    """A manifest with a wrong value is refused whole, with the path of the field."""
    text = asset("examples/hello.yaml").read_text().replace("replicas: 3", "replicas: -3")
    done = hello.run("apply", "-f", "-", stdin=text, expect=1)
    assert "spec.replicas" in done.stderr


def test_an_unknown_object_is_not_found(hello: Any) -> None:
    """A name that no object has ends with NOT_FOUND."""
    assert "NOT_FOUND" in hello.run("get", "deploy/nobody", expect=1).stderr


def test_a_program_runs_with_its_own_exit_code(hello: Any, tmp_path: Path) -> None:
    """`runtime run` passes on output and exit code, and leaves no container behind."""
    program = tmp_path / "counter"
    program.write_bytes(images.build("counter").elf)
    done = hello.run("runtime", "run", str(program), "3", "7", expect=7)
    assert len(done.stdout.splitlines()) >= 3
    assert hello.json("runtime", "containers") == []


def test_a_run_leaves_the_images_of_others_alone(hello: Any, tmp_path: Path) -> None:
    """Running a program whose image the user has, several times at once, removes only what the runs made."""
    program = tmp_path / "counter"
    program.write_bytes(images.build("counter").elf)
    before = hello.json("image", "list")
    runs = [hello.start("runtime", "run", str(program), "2", "7") for _ in range(4)]
    assert [run.wait() for run in runs] == [7] * 4
    assert hello.json("image", "list") == before


def test_a_run_that_is_terminated_ends_its_program(hello: Any, tmp_path: Path) -> None:
    """SIGTERM to the command ends the program and leaves neither container nor image."""
    program = tmp_path / "hello"
    program.write_bytes(images.build("hello").elf)
    before = hello.json("image", "list")
    run = hello.start("runtime", "run", str(program))
    assert b"Hello" in run.stdout.readline()
    run.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    assert hello.json("runtime", "containers") == []
    assert hello.json("image", "list") == before


def test_a_traced_run_names_its_trace(hello: Any, tmp_path: Path) -> None:
    """`runtime run --trace` records the run in every layer that it goes through."""
    program = tmp_path / "counter"
    program.write_bytes(images.build("counter").elf)
    done = hello.run("runtime", "run", "--trace", str(program), "1")
    tree = hello.run("trace", done.stderr.split()[1].rstrip(";")).stdout
    assert "container.exec" in tree
    assert "mmu" in tree


def test_a_decision_is_explained_by_kind_and_name(hello: Any) -> None:
    """`explain` takes the names that `get` and `delete` take."""
    hello.run("apply", "-f", "-", stdin=manifests.hello())
    name = until_pods(hello, 3)[0]
    assert "pod.scheduled" in hello.run("explain", f"pod/{name}").stdout
    hello.run("delete", "deploy/hello")
    until_pods(hello, 0)


def test_removing_what_is_not_there_says_so(hello: Any) -> None:
    """A mistyped name is an error, though removing is idempotent in the contract."""
    assert "CONTAINER_UNKNOWN" in hello.run("runtime", "rm", "nobody", expect=1).stderr


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\necho hi\n", b"\x7fELF\x02\x01\x01" + b"\0" * 20])
def test_a_program_that_is_none_is_refused(hello: Any, tmp_path: Path, content: bytes) -> None:
    """A file that is no static x86-64 ELF ends with a message and no traceback."""
    program = tmp_path / "program"
    program.write_bytes(content)
    done = hello.run("runtime", "run", str(program), expect=1)
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_image_is_refused(hello: Any, tmp_path: Path) -> None:
    """A tar that is no image is refused with a reason."""
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"not a tar" * 100)
    done = hello.run("image", "import", str(broken), expect=1)
    assert "INVALID_ARGUMENT" in done.stderr
