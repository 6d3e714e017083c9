"""The development authority: what it makes, what it refuses, what it lists."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.certificates import LONG_AGO, authority, issued

from lamina_cli.authority import ALWAYS, Authority
from lamina_cli.main import main
from lamina_kit.errors import LaminaError
from lamina_kit.security import certificates

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, no file with a key can be read by others, and keys are on P-256."""
    made = Authority(tmp_path / "ca", NOW)
    made.init("ours")
    folder = made.issue("mmu", [])
    for path in (made.key, folder / "key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


def test_a_certificate_serves_and_calls(tmp_path: Path) -> None:
    """It holds the names that were asked for and those of this host, both usages, and is no authority itself."""
    made = Authority(tmp_path, NOW)
    made.init("ours")
    folder = made.issue("mmu", ["mmu.example.org", "192.0.2.7"], 10)
    one = certificates.load((folder / "cert.pem").read_bytes(), folder)[0]
    assert certificates.sans(one) == ["mmu", *ALWAYS, "mmu.example.org", "192.0.2.7"]
    usages = one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert one.not_valid_after_utc == NOW + timedelta(days=10) and one.not_valid_before_utc < NOW


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    """One that is asked to last longer ends with the authority."""
    made = Authority(tmp_path, NOW)
    made.init("ours", 30)
    folder = made.issue("mmu", [], 365)
    one = certificates.load((folder / "cert.pem").read_bytes(), folder)[0]
    assert one.not_valid_after_utc == NOW + timedelta(days=30)


def test_renewing_keeps_the_names_and_changes_the_rest(tmp_path: Path) -> None:
    """The new certificate has the old one's names, another key and serial, and a later end."""
    made = Authority(tmp_path, NOW)
    made.init("ours")
    folder = made.issue("mmu", ["far.example.org"], 10)
    before, key = made.list()[1], (folder / "key.pem").read_bytes()
    later = Authority(tmp_path, NOW + timedelta(days=9))
    assert later.renew("mmu", 10) == folder
    after = later.list()[1]
    assert after.sans == before.sans and after.serial != before.serial
    assert (before.days_left, after.days_left) == (10, 10) and after.not_after > before.not_after
    assert (folder / "key.pem").read_bytes() != key
    assert not list(folder.glob("*.new"))


def test_the_list_says_what_has_ended(tmp_path: Path) -> None:
    """Days left are below 0 and the problem is named; a file that is no certificate does not hide the others."""
    issued(tmp_path, "old", at=LONG_AGO)
    issued(tmp_path, "sound")
    (issued(tmp_path, "broken").cert).write_text("no certificate")
    rows = {row.name: row for row in authority(tmp_path, at=timedelta()).list()}
    assert -37 < rows["old"].days_left < -34 and rows["old"].problem == "CERTIFICATE_EXPIRED"
    assert rows["sound"].days_left in (364, 365) and not rows["sound"].problem
    assert "broken/cert.pem" in rows["broken"].problem
    assert rows["-"].kind == "authority"


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda made: made.init("again"), "CA_EXISTS"),
        (lambda made: made.init("n" * 65), "CERTIFICATE_NAME_INVALID"),
        (lambda made: made.init(""), "CERTIFICATE_NAME_INVALID"),
        (lambda made: made.issue("mmu", []), "CERTIFICATE_EXISTS"),
        (lambda made: made.renew("nobody"), "CERTIFICATE_UNKNOWN"),
        (lambda made: made.issue("../up", []), "CERTIFICATE_NAME_INVALID"),
        (lambda made: made.issue("a", ["two words"]), "SAN_INVALID"),
        (lambda made: made.issue("a", ["host:50051"]), "SAN_INVALID"),
        (lambda made: made.issue("a", ["1.2.3"]), "SAN_INVALID"),
        (lambda made: made.issue("a", [], 0), "CERTIFICATE_DAYS_INVALID"),
    ],
)
def test_what_it_refuses(tmp_path: Path, work: Callable[[Authority], object], reason: str) -> None:
    """A refusal has its reason and leaves everything as it was."""
    made = Authority(tmp_path, NOW)
    made.init("ours")
    made.issue("mmu", [])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(LaminaError) as caught:
        work(made)
    assert caught.value.reason == reason and caught.value.message
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("work", [lambda made: made.issue("new", []), lambda made: made.renew("mmu")])
def test_a_full_disk_leaves_no_half_of_a_certificate(
    tmp_path: Path, work: Callable[[Authority], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written last and does not fit, everything is as it was, without a key that is left over."""
    made = Authority(tmp_path, NOW)
    made.init("ours")
    made.issue("mmu", [])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written: list[int] = []

    def full(number: int) -> None:
        written.append(number)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LaminaError, match="No space") as caught:
        work(made)
    assert caught.value.reason == "CA_UNWRITABLE"
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert not (tmp_path / "issued" / "new").exists()


def test_an_authority_that_ended_issues_nothing(tmp_path: Path) -> None:
    """The error names the file of the authority."""
    authority(tmp_path, days=30)
    with pytest.raises(LaminaError) as caught:
        Authority(tmp_path, datetime.now(UTC)).issue("mmu", [])
    assert caught.value.reason == "CERTIFICATE_EXPIRED" and str(tmp_path / "ca.pem") in caught.value.message


def test_the_command_makes_lists_and_renews(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing to a renewed certificate with the command alone; without an authority it says how to make one."""
    there = ["--dir", str(tmp_path / "ca")]
    assert main(["ca", "list", *there]) == 1
    assert "lamina ca init" in capsys.readouterr().err
    assert main(["ca", "init", *there]) == 0
    assert main(["ca", "issue", "mmu", "--san", "10.0.0.5", "--days", "20", *there]) == 0
    assert main(["ca", "list", "-o", "json", *there]) == 0
    said = capsys.readouterr().out
    assert '"10.0.0.5"' in said and '"days_left": 19' in said
    assert main(["ca", "renew", "--within", "5", *there]) == 0
    assert "nothing ends" in capsys.readouterr().out
    assert main(["ca", "renew", *there]) == 0
    assert "renewed" in capsys.readouterr().out
