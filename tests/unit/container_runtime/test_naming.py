"""References, users, log lines, pages and command lines: the small grammars of the layer."""

from __future__ import annotations

import pytest

from lamina_container_runtime.domain.containers import log_line, user_spec
from lamina_container_runtime.domain.containers.log_line import LogLine
from lamina_container_runtime.domain.containers.user_spec import UserIds
from lamina_container_runtime.domain.images import reference
from lamina_container_runtime.domain.images.image import command_of, environment_of
from lamina_container_runtime.domain.images.oci_document import RunConfig
from lamina_container_runtime.domain.pagination import page
from lamina_kit.errors import InvalidArgument

DIGEST = "sha256:" + "a" * 64
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100:Bob:/home/bob:/bin/sh\nbroken\n"
GROUP = "root:x:0:\nusers:x:100:\nwheel:x:10:bob,eve\nbad:x:nonsense:bob\n"


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("hello", "docker.io/library/hello:latest"),
        ("hello:1.2", "docker.io/library/hello:1.2"),
        ("me/hello", "docker.io/me/hello:latest"),
        ("docker.io/hello", "docker.io/library/hello:latest"),
        ("index.docker.io/library/hello", "docker.io/library/hello:latest"),
        ("localhost/hello", "localhost/hello:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("Registry.example.com/a", "Registry.example.com/a:latest"),
        (f"hello@{DIGEST}", f"docker.io/library/hello@{DIGEST}"),
        (f"hello:1@{DIGEST}", f"docker.io/library/hello@{DIGEST}"),
        ("a__b/c.d-e_f", "docker.io/a__b/c.d-e_f:latest"),
    ],
)
def test_references_are_normalised(given: str, full: str) -> None:
    """Registry, library and tag are filled in as container engines do."""
    assert reference.normalise(given) == full
    assert reference.normalise(full) == full


@pytest.mark.parametrize("given", ["", "A", "a//b", "a:", "a@", "a@sha256:1", "a b", "a/-b", "é", "a:" + "t" * 129])
def test_other_references_are_refused(given: str) -> None:
    """What the grammar does not have is REFERENCE_MALFORMED."""
    with pytest.raises(InvalidArgument) as caught:
        reference.normalise(given)
    assert caught.value.reason == "REFERENCE_MALFORMED"


@pytest.mark.parametrize(
    ("spec", "ids"),
    [
        ("", UserIds(0, 0, (), "/root")),
        ("bob", UserIds(1000, 100, (10,), "/home/bob")),
        ("1000", UserIds(1000, 100, (10,), "/home/bob")),
        ("4711", UserIds(4711, 0, (), "")),
        ("bob:wheel", UserIds(1000, 10, (), "/home/bob")),
        ("bob:55", UserIds(1000, 55, (), "/home/bob")),
    ],
)
def test_users_are_looked_up_in_the_image(spec: str, ids: UserIds) -> None:
    """Names come from the image's files, numbers need none, and a given group replaces all others."""
    assert user_spec.resolve(spec, PASSWD, GROUP) == ids


@pytest.mark.parametrize("spec", ["eve", "bob:", "bob:none", "-1", "4294967295", "99999999999"])
def test_unknown_users_are_refused(spec: str) -> None:
    """A name without an entry and a number out of range are USER_UNKNOWN."""
    with pytest.raises(InvalidArgument) as caught:
        user_spec.resolve(spec, PASSWD, GROUP)
    assert caught.value.reason == "USER_UNKNOWN"


def test_lines_are_taken_whole_and_overlong_ones_in_parts() -> None:
    """A line waits for its newline; 16 KiB of it are a part."""
    waiting = bytearray(b"one\ntwo")
    assert list(log_line.take_lines(waiting)) == [(b"one", False)]
    waiting += b"\n" + b"x" * (log_line.MAX_CONTENT + 5) + b"\nrest"
    assert list(log_line.take_lines(waiting)) == [
        (b"two", False),
        (b"x" * log_line.MAX_CONTENT, True),
        (b"x" * 5, False),
    ]
    assert waiting == b"rest"


def test_log_lines_have_the_form_of_cri() -> None:
    """Time, stream, mark and content; a damaged line is content of standard output."""
    line = LogLine(1_767_225_600_000_000_007, "stderr", b"a b\r", True)
    text = log_line.format(line)
    assert text == b"2026-01-01T00:00:00.000000007Z stderr P a b\r\n"
    assert log_line.parse(text[:-1]) == line
    assert log_line.parse(b"garbage") == LogLine(0, "stdout", b"garbage", False)


def test_command_lines_follow_the_rules_of_pods() -> None:
    """A command replaces entry point and arguments; arguments alone replace the image's."""
    run = RunConfig(entrypoint=("e",), cmd=("c",))
    assert command_of(run, (), ()) == ("e", "c")
    assert command_of(run, (), ("a",)) == ("e", "a")
    assert command_of(run, ("k",), ()) == ("k",)
    assert command_of(run, ("k",), ("a",)) == ("k", "a")


def test_environment_is_the_images_with_the_creators_over_it() -> None:
    """A key given twice is the creator's; PATH, HOSTNAME and HOME are there when nobody gave them."""
    run = RunConfig(env=("A=1", "B=2", "PATH=/bin"))
    assert environment_of(run, ("B=3", "C=x=y"), "web", "/home/bob") == (
        "A=1",
        "B=3",
        "PATH=/bin",
        "C=x=y",
        "HOSTNAME=web",
        "HOME=/home/bob",
    )


def test_pages_go_on_behind_the_last_key() -> None:
    """Items that come or go between pages neither repeat nor hide others."""
    items = ["a", "b", "c", "d"]
    first, token = page(items, str, 2, "")
    rest, end = page(["b", "bb", "c", "d"], str, 2, token)
    assert (first, rest) == (["a", "b"], ["bb", "c"])
    assert page(["d"], str, 2, end) == (["d"], "")
    with pytest.raises(InvalidArgument) as caught:
        page(items, str, 2, "bm90IG91cnM=")
    assert caught.value.reason == "PAGE_TOKEN_INVALID"
