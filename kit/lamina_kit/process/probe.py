"""Asks a service whether it is healthy: `python -m lamina_kit.process.probe TARGET [SERVICE]`.

For health checks of containers and for scripts. Exit status 0: it serves; 1: it does not, or nobody answers. What it
found is printed on one line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lamina_kit.errors import LaminaError
from lamina_kit.security.credentials import of_channel
from lamina_kit.security.transport import Security, TlsFiles, bare

TIMEOUT_S = 3.0


def probe(target: str, service: str = "", timeout_s: float = TIMEOUT_S, tls_dir: str = "") -> str:
    """Returns what a service at `target` (`HOST:PORT` or `unix:/path`) says of its health, by the name of the status.

    An empty `service` asks for the whole server. Nobody who answers in time is the name of the gRPC code. With a
    `tls_dir` what lies beyond this host is asked with the certificates in it; without one it is asked in the clear.
    Raises `FailedPrecondition` `TLS_REQUIRED` for `tls:HOST:PORT` without certificates, and as `certificates.read`.
    """
    with _channel(target, tls_dir) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            checker: Any = health_pb2_grpc.HealthStub(channel)
            answer = checker.Check(request, timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError as error:
            return str(error.code().name) if isinstance(error, grpc.Call) else type(error).__name__
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _channel(target: str, tls_dir: str) -> grpc.Channel:
    files = TlsFiles.of(Path(tls_dir)) if tls_dir else None
    if not Security(files, plain_network=files is None).encrypts(target):
        return grpc.insecure_channel(target)
    assert files is not None
    return grpc.secure_channel(bare(target), of_channel(files))


def main(arguments: list[str]) -> int:
    """Probes what the arguments name and prints the outcome."""
    if len(arguments) not in (1, 2):
        print("usage: python -m lamina_kit.process.probe HOST:PORT|tls:HOST:PORT|unix:/PATH [SERVICE]", file=sys.stderr)
        return 2
    try:
        service = arguments[1] if len(arguments) == 2 else ""
        outcome = probe(arguments[0], service, tls_dir=os.environ.get("LAMINA_TLS_DIR", ""))
    except LaminaError as error:
        outcome = f"{error.reason}: {error}"
    print(outcome)
    return 0 if outcome == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
