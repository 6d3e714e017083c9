"""Quantities: exact, canonical, bounded."""

from __future__ import annotations

import pytest

from lamina_orchestrator.domain.kinds.quantity import canonical_quantity, millis, parse_quantity, units


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("1", 10**9), ("0.5", 5 * 10**8), ("100m", 10**8), ("1k", 10**12), ("1Ki", 1024 * 10**9), ("2e3", 2 * 10**12),
     ("1E", 10**27 // 10**0), ("-1", -(10**9)), (".5", 5 * 10**8), ("5.", 5 * 10**9), ("1n", 1), ("0.1n", 1)],
)  # fmt: skip
def test_parsing_is_exact(text: str, nanos: int) -> None:
    """Each form is read exactly; digits below a nano-unit round away from zero."""
    assert parse_quantity(text) == nanos


@pytest.mark.parametrize(
    "text", ["", "m", "1.2.3", "1 ", "1ki", "1KiB", "0x10", "1e", "\u0661", "1_0", "1e9999", "9999999E"]
)
def test_malformed_quantities_are_refused(text: str) -> None:
    """What is no quantity, or beyond 2**63 - 1, is refused."""
    with pytest.raises(ValueError, match=r"quantities|at most"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("0.5", "500m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1500Ki", "1500Ki"), ("512", "512"),
     ("0.5Ki", "512"), ("12e6", "12e6"), ("1000k", "1M"), ("0", "0"), ("0Gi", "0"), ("0.0001", "100u"),
     ("218.214035Mi", "228814k")],
)  # fmt: skip
def test_canonical_form_is_kubernetes_own(text: str, wanted: str) -> None:
    """A quantity is written in the form in which Kubernetes writes it, and that form is stable."""
    assert canonical_quantity(text) == wanted
    assert canonical_quantity(wanted) == wanted


def test_counts_round_up() -> None:
    """Thousandths and units round up, so nothing is promised that is not there."""
    assert (millis("0.0001"), millis("1.5"), units("0.5"), units("1Gi")) == (1, 1500, 1, 1 << 30)
