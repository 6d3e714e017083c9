"""Errors: what they carry, and how they cross the wire."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from lamina_kit.errors import CLASSES, Internal, InvalidArgument, LaminaError, NotFound, Unavailable, Violation
from lamina_kit.rpc import status


def carried(error: LaminaError) -> grpc.aio.AioRpcError:
    """Returns the error as a caller's gRPC library raises it."""
    wire = status.to_status(error)
    trailing = grpc.aio.Metadata((status.DETAILS_KEY, wire.SerializeToString()))
    return grpc.aio.AioRpcError(status.grpc_code(error), grpc.aio.Metadata(), trailing, details=wire.message)


def test_an_error_says_what_and_what_next() -> None:
    """The text of an error is its message followed by the next step."""
    error = NotFound("No vm web-1.", reason="VM_NOT_FOUND", next_step="List them.", vm="web-1", count=3)
    assert str(error) == "No vm web-1. List them."
    assert error.metadata == {"vm": "web-1", "count": "3"}
    assert "VM_NOT_FOUND" in repr(error)


@pytest.mark.parametrize("reason", ["", "x", "Lower", "WITH SPACE", "1ST", "A" * 64, "TRAILING_"])
def test_a_reason_is_upper_snake(reason: str) -> None:
    """A reason that programs cannot match on is refused where it is written."""
    with pytest.raises(ValueError, match="UPPER_SNAKE"):
        NotFound("x", reason=reason)


def test_each_class_has_a_grpc_code_of_its_own() -> None:
    """The set is closed: one class a code, every code one that gRPC has."""
    codes = [error.code for error in CLASSES]
    assert len(set(codes)) == len(codes)
    assert {grpc.StatusCode[code] for code in codes} == set(grpc.StatusCode) - {
        grpc.StatusCode.OK,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNAUTHENTICATED,
    }


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_wire(kind: type[LaminaError]) -> None:
    """Class, reason, message, next step, metadata and violations come back equal."""
    error = kind(
        "It failed: “ünfortunately”.",
        reason="IT_FAILED",
        next_step="Try again.",
        violations=[Violation("a", "is b"), Violation("c", "is d")],
        zeta=1,
        alpha=2,
    )
    back = status.rpc_error(carried(error))
    assert type(back) is kind
    assert (back.message, back.reason, back.next_step) == (error.message, "IT_FAILED", "Try again.")
    assert back.violations == error.violations
    assert back.metadata == {"alpha": "2", "zeta": "1"}


def test_the_status_is_google_s() -> None:
    """The details are ErrorInfo and BadRequest, as other languages expect them."""
    wire = status.to_status(InvalidArgument("m", reason="REQUEST_INVALID", violations=[Violation("f", "d")], k="v"))
    info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert wire.details[0].Unpack(info) and wire.details[1].Unpack(wrong)
    assert (info.reason, info.domain, dict(info.metadata)) == ("REQUEST_INVALID", "lamina", {"k": "v"})
    assert (wrong.field_violations[0].field, wrong.field_violations[0].description) == ("f", "d")


@pytest.mark.parametrize("letter", ["m", "가", "\ud800"])
def test_huge_errors_are_cut_to_fit_a_trailer(letter: str) -> None:
    """However much an error says, its status stays within what gRPC carries."""
    error = InvalidArgument(
        letter * 100_000,
        reason="REQUEST_INVALID",
        next_step=letter * 10_000,
        violations=[Violation(letter * 10_000, letter * 10_000) for _ in range(100)],
        **{f"key{number}": letter * 10_000 for number in range(100)},
    )
    wire = status.to_status(error)
    escaped = sum(1 if 0x20 <= byte < 0x7F else 3 for byte in wire.message.encode())
    assert len(wire.SerializeToString()) * 4 / 3 + escaped < 8000
    assert status.rpc_error(carried(error)).reason == "REQUEST_INVALID"


def test_a_foreign_status_keeps_its_code() -> None:
    """A status without our details gets the class of its code and a reason made of it."""
    error = status.rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, details="connection refused"))
    assert isinstance(error, Unavailable)
    assert (error.reason, error.message) == ("RPC_UNAVAILABLE", "connection refused")
    assert error.next_step
    unknown = status.rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN))
    assert isinstance(unknown, Internal) and unknown.reason == "RPC_UNKNOWN"


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xff\xff",
        b"",
        status_pb2.Status(code=5, message="m").SerializeToString(),
    ],
)
def test_malformed_details_are_ignored(raw: bytes) -> None:
    """Details that are none do not hide the status itself."""
    trailing = grpc.aio.Metadata((status.DETAILS_KEY, raw))
    error = status.rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "gone"))
    assert isinstance(error, NotFound) and error.reason == "RPC_NOT_FOUND"


def test_a_malformed_reason_from_outside_is_not_taken() -> None:
    """A reason that ours could not be is replaced."""
    wire = status_pb2.Status(code=5, message="m")
    wire.details.add().Pack(error_details_pb2.ErrorInfo(reason="not ours", domain="x"))
    trailing = grpc.aio.Metadata((status.DETAILS_KEY, wire.SerializeToString()))
    error = status.rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "m"))
    assert error.reason == "RPC_NOT_FOUND"
