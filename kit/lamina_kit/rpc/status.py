"""Errors on the wire: `LaminaError` ↔ `google.rpc.Status`.

An error leaves a service as a gRPC status with the trailing metadata `grpc-status-details-bin`: a `google.rpc.Status`
with one `ErrorInfo` (reason, domain `lamina`, metadata, the next step among them) and, for wrong fields, one
`BadRequest`. `rpc_error` makes the same class with the same reason, metadata and violations of it again.

Trailers are small (gRPC refuses over 8 KiB), so long texts are cut and surplus violations are left out.
"""

from __future__ import annotations

import re
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from lamina_kit.errors import CLASSES, Internal, LaminaError, Unavailable, Violation

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "lamina"

_MAX_MESSAGE = 800
_MAX_VALUE = 256
_MAX_KEY = 63
_MAX_INFO = 1800
_MAX_DETAILS = 3500
_NEXT_STEP = "next_step"
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]")
_BY_CODE = {error.code: error for error in CLASSES}
_TOO_LARGE = "message larger than max"


def _cut(text: str, limit: int) -> str:
    """Returns text that UTF-8 can say in at most `limit` bytes."""
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "…"


def grpc_code(error: LaminaError) -> grpc.StatusCode:
    """Returns the gRPC code of an error's class."""
    return grpc.StatusCode[error.code]


def to_status(error: LaminaError) -> Any:
    """Returns the `google.rpc.Status` of an error, at most 3.5 KiB: base64 and the text itself come on top."""
    status = status_pb2.Status(code=grpc_code(error).value[0], message=_cut(str(error), _MAX_MESSAGE))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if error.next_step:
        info.metadata[_NEXT_STEP] = _cut(error.next_step, _MAX_VALUE)
    room = _MAX_INFO - info.ByteSize()
    for key, value in error.metadata.items():
        short_key, short_value = _cut(key, _MAX_KEY), _cut(value, _MAX_VALUE)
        room -= len(short_key.encode()) + len(short_value.encode()) + 8
        if room < 0:
            break
        info.metadata[short_key] = short_value
    status.details.add().Pack(info)
    if error.violations:
        status.details.add().Pack(_wrong_fields(error, _MAX_DETAILS - status.ByteSize() - 64))
    return status


def _wrong_fields(error: LaminaError, room: int) -> Any:
    """Returns the violations of an error as a `BadRequest`, as many as fit into `room` bytes."""
    wrong = error_details_pb2.BadRequest()
    for violation in error.violations:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _MAX_VALUE), description=_cut(violation.description, _MAX_VALUE)
        )
        room -= entry.ByteSize() + 8
        if room < 0:
            break
        wrong.field_violations.append(entry)
    return wrong


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: LaminaError) -> None:
    """Ends a call with an error, keeping trailing metadata that the handler has set; never returns normally."""
    status = to_status(error)
    kept = tuple(context.trailing_metadata() or ())
    await context.abort(
        grpc_code(error), status.message, trailing_metadata=(*kept, (DETAILS_KEY, status.SerializeToString()))
    )


def rpc_error(error: grpc.aio.AioRpcError) -> LaminaError:
    """Returns what a failed call says, as the class, reason, metadata and violations with which it was raised.

    A status without our details (from gRPC itself, or from a foreign server) gets its class from its code and the
    reason `RPC_<code>`; a message over the size limit gets `MESSAGE_TOO_LARGE`.
    """
    kind = _BY_CODE.get(error.code().name, Internal)
    message = error.details() or f"The call ended with {error.code().name}."
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes) and (rich := _from_details(kind, message, value)):
            return rich
    if _TOO_LARGE in message:
        return kind(
            message,
            reason="MESSAGE_TOO_LARGE",
            next_step="Split the request: a message holds at most 8 MiB.",
        )
    next_step = "Check that the service runs and retry." if kind is Unavailable else ""
    return kind(message, reason=f"RPC_{error.code().name}", next_step=next_step)


def _from_details(kind: type[LaminaError], message: str, raw: bytes) -> LaminaError | None:
    """Returns the error in a serialized `google.rpc.Status`, or None when it holds no usable `ErrorInfo`."""
    info = error_details_pb2.ErrorInfo()
    wrong = error_details_pb2.BadRequest()
    found = False
    try:
        for detail in status_pb2.Status.FromString(raw).details:
            if detail.Is(info.DESCRIPTOR):
                found = detail.Unpack(info)
            elif detail.Is(wrong.DESCRIPTOR):
                detail.Unpack(wrong)
    except DecodeError:
        return None
    if not found or not _REASON.fullmatch(info.reason):
        return None
    metadata = {key: info.metadata[key] for key in sorted(info.metadata)}
    next_step = metadata.pop(_NEXT_STEP, "")
    error = kind(
        message.removesuffix(f" {next_step}") if next_step else message,
        reason=info.reason,
        next_step=next_step,
        violations=[Violation(entry.field, entry.description) for entry in wrong.field_violations],
    )
    error.metadata = metadata
    return error
