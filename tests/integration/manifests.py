"""The example's Deployment for tests that delete its pods in real time."""

from __future__ import annotations

from lamina_cli.guests.assets import asset

GRACE_S = 3


def hello(*, replicas: int = 3) -> str:
    """Returns `examples/hello.yaml` with that many replicas, and pods that are killed soon.

    Process 1 of a pod ignores SIGTERM until it handles it. One that is deleted as soon as it runs would live for the
    half minute that is Kubernetes' default, and where this is used nothing is about that.
    """
    text = asset("examples/hello.yaml").read_text()
    for old, new in (
        ("      containers:\n", f"      terminationGracePeriodSeconds: {GRACE_S}\n      containers:\n"),
        ("  replicas: 3\n", f"  replicas: {replicas}\n"),
    ):
        assert text.count(old) == 1, f"the example has no single {old!r} any more"
        text = text.replace(old, new)
    return text
