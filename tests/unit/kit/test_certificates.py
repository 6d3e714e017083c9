"""Certificates on disk: what is found before a handshake, named by file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.certificates import LONG_AGO, TOMORROW, authority, issued

from lamina_kit.errors import LaminaError
from lamina_kit.security.transport import PLAIN, Security, TlsFiles, is_local

DAY = 86_400


def test_a_sound_certificate_is_read(tmp_path: Path) -> None:
    """The three files come back, with the end of the certificate, for both usages."""
    files = issued(tmp_path, "mmu", days=30)
    for usage in ("server", "client"):
        material = files.read(usage)
        assert material.cert == files.cert.read_bytes() and material.ca == files.ca.read_bytes()
        assert 29 * DAY < material.ends - time.time() <= 30 * DAY


def encrypted(files: TlsFiles) -> None:
    """Puts a passphrase on the key."""
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    form, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(form, kind, serialization.BestAvailableEncryption(b"secret")))


def other_key(files: TlsFiles) -> None:
    """Puts the key of another certificate there."""
    files.key.write_bytes(issued(files.ca.parent.parent.parent, "other").key.read_bytes())


def other_ca(files: TlsFiles) -> None:
    """Puts another authority there, of the same name."""
    files.ca.write_bytes(authority(files.ca.parent / "elsewhere").cert.read_bytes())


def unreadable(files: TlsFiles) -> None:
    """Puts a folder where the key was."""
    files.key.unlink()
    files.key.mkdir()


@pytest.mark.parametrize(
    ("change", "reason", "file"),
    [
        (lambda files: files.ca.unlink(), "TLS_FILE_MISSING", "ca.pem"),
        (lambda files: files.cert.write_text("hello"), "TLS_FILE_MALFORMED", "cert.pem"),
        (lambda files: files.key.write_text(""), "TLS_FILE_MALFORMED", "key.pem"),
        (lambda files: files.ca.write_bytes(b"x" * (1 << 21)), "TLS_FILE_MALFORMED", "ca.pem"),
        (encrypted, "TLS_FILE_MALFORMED", "key.pem"),
        (unreadable, "TLS_FILE_UNREADABLE", "key.pem"),
        (other_key, "CERTIFICATE_KEY_MISMATCH", "key.pem"),
        (other_ca, "CERTIFICATE_UNTRUSTED", "ca.pem"),
    ],
)
def test_what_does_not_fit_is_named_by_file(
    tmp_path: Path, change: Callable[[TlsFiles], object], reason: str, file: str
) -> None:
    """The error says which file and what to do next."""
    files = issued(tmp_path, "mmu")
    change(files)
    with pytest.raises(LaminaError) as caught:
        files.read("server")
    assert caught.value.reason == reason and caught.value.next_step
    assert str(files.ca.parent / file) in caught.value.message


def test_a_certificate_that_has_ended(tmp_path: Path) -> None:
    """It is refused with the time at which it ended, though all else fits."""
    files = issued(tmp_path, "mmu", at=LONG_AGO)
    with pytest.raises(LaminaError) as caught:
        files.read("client")
    assert caught.value.reason == "CERTIFICATE_EXPIRED" and caught.value.code == "FAILED_PRECONDITION"
    assert str(files.cert) in caught.value.message and "UTC" in caught.value.message
    assert "lamina ca renew" in caught.value.next_step


def test_a_certificate_that_has_not_begun(tmp_path: Path) -> None:
    """It is refused with both times: one of the clocks is wrong."""
    files = issued(tmp_path, "mmu", at=TOMORROW)
    with pytest.raises(LaminaError) as caught:
        files.read("server")
    assert caught.value.reason == "CERTIFICATE_NOT_YET_VALID" and str(files.cert) in caught.value.message


def test_an_authority_that_has_ended(tmp_path: Path) -> None:
    """Its file is named, not that of the certificate."""
    authority(tmp_path, days=390, at=LONG_AGO)
    files = issued(tmp_path, "mmu", at=LONG_AGO, days=395)
    with pytest.raises(LaminaError) as caught:
        files.read("server")
    assert caught.value.reason == "CERTIFICATE_EXPIRED"


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/run/a.sock", True),
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.5:1", False),
        ("mmu:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_which_addresses_are_plain(address: str, local: bool) -> None:
    """Inside the host nothing is encrypted, beyond it everything; names are not looked up."""
    files = TlsFiles.of(Path("/t"))
    assert is_local(address) is local
    assert Security(files).encrypts(address) is not local
    assert not Security(plain_network=True).encrypts(address)
    if local:
        assert not PLAIN.encrypts(address)
    else:
        with pytest.raises(LaminaError, match=r"--tls-dir") as caught:
            PLAIN.encrypts(address)
        assert caught.value.reason == "TLS_REQUIRED"


def test_tls_can_be_asked_for_anywhere() -> None:
    """`tls:` in front of a local address encrypts it too, and is never answered in the clear."""
    assert Security(TlsFiles.of(Path("/t")), plain_network=True).encrypts("tls:127.0.0.1:1")
    with pytest.raises(LaminaError) as caught:
        Security(plain_network=True).encrypts("tls:127.0.0.1:1")
    assert caught.value.reason == "TLS_REQUIRED"


def test_what_listens_everywhere_is_called_on_loopback() -> None:
    """A command on the same host calls it there, encrypted when the port is."""
    files = TlsFiles.of(Path("/t"))
    assert Security(files).from_here("0.0.0.0:5") == "tls:127.0.0.1:5"
    assert Security(plain_network=True).from_here("[::]:5") == "[::1]:5"
    assert Security(files).from_here("10.0.0.5:5") == "10.0.0.5:5"
    assert Security(files).from_here("unix:/a") == "unix:/a"
