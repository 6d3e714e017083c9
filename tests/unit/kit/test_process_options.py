"""The flags of a service process and the variables that say the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_kit.errors import FailedPrecondition, InvalidArgument
from lamina_kit.process.options import read
from lamina_kit.security.transport import PLAIN, Security, TlsFiles

WORDS = ("--host", "h2", "--state-dir", "/s", "--listen", "unix:/run/m.sock", "--upstream", "hardware=unix:/run/h.sock")


def test_flags_say_all_there_is_to_say() -> None:
    """Every flag arrives as a value of its type; addresses may be several."""
    words = [*WORDS, "--listen", "127.0.0.1:0", "--bus", "/b", "--seed", "7", "--patience", "9", "--parent", "12"]
    words += ["--log-level", "debug", "--log-format", "json", "--engine", "model", "--config", "/c.toml"]
    found = read("mmu", ("hardware",), words, {})
    assert (found.host, found.state_dir, found.bus, found.config) == ("h2", Path("/s"), Path("/b"), Path("/c.toml"))
    assert found.listen == ("unix:/run/m.sock", "127.0.0.1:0")
    assert found.upstreams == {"hardware": "unix:/run/h.sock"}
    assert (found.seed, found.patience_s, found.parent) == (7, 9, 12)
    assert (found.operations["log_level"], found.operations["log_format"], found.engine) == ("debug", "json", "model")


def test_variables_stand_in_for_flags() -> None:
    """With variables alone a process is as well described as with flags."""
    environ = {
        "LAMINA_HOST": "h3",
        "LAMINA_STATE_DIR": "/s",
        "LAMINA_BUS": "/b",
        "LAMINA_LISTEN": "unix:/a.sock, 127.0.0.1:50055",
        "LAMINA_UPSTREAM_CONTAINER_RUNTIME": "runtime:50055",
        "LAMINA_PATIENCE": "5",
        "LAMINA_GRACE": "0",
        "LAMINA_PLAIN_NETWORK": "true",
    }
    found = read("orchestrator", ("container-runtime",), (), environ)
    assert (found.host, found.bus, found.patience_s) == ("h3", Path("/b"), 5)
    assert found.listen == ("unix:/a.sock", "127.0.0.1:50055")
    assert found.upstreams == {"container-runtime": "runtime:50055"}
    assert found.grace_s == 0 and found.security() == Security(plain_network=True)


def test_a_flag_stands_above_its_variable() -> None:
    """What was typed wins over what is set."""
    environ = {"LAMINA_HOST": "h9", "LAMINA_LISTEN": "unix:/other.sock", "LAMINA_UPSTREAM_HARDWARE": "other:1"}
    found = read("mmu", ("hardware",), WORDS, environ)
    assert (found.host, found.listen) == ("h2", ("unix:/run/m.sock",))
    assert found.upstreams == {"hardware": "unix:/run/h.sock"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--state-dir", "/s"), "listen"),
        (("--listen", "unix:/a"), "state-dir"),
        ((*WORDS, "--host", "H_1"), "host"),
        ((*WORDS, "--seed", "x"), "--seed"),
        ((*WORDS, "--patience", "-1"), "--patience"),
        ((*WORDS, "--log-level", "loud"), "log-level"),
        ((*WORDS, "--upstream", "vswitch=unix:/v"), "vswitch"),
        ((*WORDS, "--upstream", "hardware"), "hardware"),
        ((*WORDS, "--listen", "nowhere"), "nowhere"),
        ((*WORDS, "--colour", "red"), "--colour"),
        ((*WORDS, "--grace", "-1"), "--grace"),
        ((*WORDS, "--grace", "9999"), "grace"),
        ((*WORDS, "--tls-cert", "/c.pem"), "tls-ca"),
        (WORDS[:6], "upstream hardware"),
    ],
)
def test_a_wrong_flag_is_named(words: tuple[str, ...], named: str) -> None:
    """The message names what is wrong, whatever kind of mistake it is."""
    with pytest.raises(InvalidArgument) as caught:
        read("mmu", ("hardware",), words, {})
    assert named in str(caught.value)


def test_beyond_the_host_only_with_certificates() -> None:
    """An address of another machine, to listen on or to call, needs a certificate, or a private network."""
    for words in (("--listen", "0.0.0.0:1"), ("--upstream", "hardware=far:1"), ("--listen", "tls:127.0.0.1:0")):
        with pytest.raises(FailedPrecondition) as caught:
            read("mmu", ("hardware",), (*WORDS, *words), {})
        assert caught.value.reason == "TLS_REQUIRED" and words[1].removeprefix("hardware=") in str(caught.value)
        assert read("mmu", ("hardware",), (*WORDS, *words, "--tls-dir", "/t"), {}).tls is not None
    private = read("mmu", ("hardware",), (*WORDS, "--listen", "0.0.0.0:1", "--plain-network"), {})
    assert private.security() == Security(plain_network=True)
    assert read("mmu", ("hardware",), WORDS, {}).security() == PLAIN


def test_certificates_are_a_folder_or_three_files() -> None:
    """A file that is named stands in for that of the folder."""
    folder = read("mmu", ("hardware",), (*WORDS, "--tls-dir", "/t", "--tls-key", "/k.pem"), {})
    assert folder.tls == TlsFiles(Path("/t/ca.pem"), Path("/t/cert.pem"), Path("/k.pem"))
    environ = {"LAMINA_TLS_CA": "/a", "LAMINA_TLS_CERT": "/b", "LAMINA_TLS_KEY": "/c"}
    assert read("mmu", ("hardware",), WORDS, environ).tls == TlsFiles(Path("/a"), Path("/b"), Path("/c"))
    with pytest.raises(InvalidArgument, match="--plain-network"):
        read("mmu", ("hardware",), WORDS, {"LAMINA_PLAIN_NETWORK": "perhaps"})
