"""Why a backend cannot be opened: what the kernel says, as the contract's errors."""

from __future__ import annotations

import errno

from lamina_kit.errors import FailedPrecondition, LaminaError, NotFound, PermissionDenied, Unimplemented

_DENIED = (errno.EPERM, errno.EACCES)
_UNKNOWN = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR, errno.EADDRNOTAVAIL, errno.EISDIR)
_LACKING = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOPROTOOPT, errno.ENOTTY)


def refusal(what: str, error: OSError, capability: str = "") -> LaminaError:
    """Return the error for something that cannot be opened; `capability` is the one that it usually needs."""
    said = error.strerror or str(error)
    if error.errno in _DENIED:
        missing = f": {capability} is missing" if capability else ""
        return PermissionDenied(
            f"The machine does not let this process open {what} ({said}){missing}.",
            reason="DEVICE_FORBIDDEN",
            next_step="Run the service as a user that may, or give it the capability.",
        )
    if error.errno in _UNKNOWN:
        return NotFound(
            f"There is no {what}: {said}.",
            reason="DEVICE_UNKNOWN",
            next_step="Make it first, or name another.",
        )
    if error.errno in _LACKING:
        return lacking(what, said)
    return FailedPrecondition(
        f"{what[:1].upper()}{what[1:]} cannot be had: {said}.",
        reason="DEVICE_IN_USE",
        next_step="End what uses it, or name another.",
    )


def lacking(what: str, said: str) -> Unimplemented:
    """Return the error for a kind that this machine does not have: `ENGINE_LACKS_BACKEND`."""
    return Unimplemented(
        f"This machine has no {what}: {said}.",
        reason="ENGINE_LACKS_BACKEND",
        next_step="Use another kind of backend.",
    )
