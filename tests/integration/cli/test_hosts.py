"""A stack of several hosts: five layers each, one orchestrator over all."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lamina_cli.commands.stack.up import addresses
from lamina_kit.errors import InvalidArgument

MANIFEST = "examples/hello.yaml"
PATIENCE_S = 30.0


def test_further_hosts_have_five_ports_each() -> None:
    """The first six ports are the first host's and the orchestrator's; each further host has the next five."""
    found = addresses(50051, ("h1", "h2", "h3"))
    assert [found["hardware"], found["orchestrator"]] == ["127.0.0.1:50051", "127.0.0.1:50056"]
    assert sorted(found.values())[6:] == [f"127.0.0.1:{port}" for port in range(50057, 50067)]
    assert "h3/mmu" in found and "h2/orchestrator" not in found
    with pytest.raises(InvalidArgument) as caught:
        addresses(65530, ("h1", "h2"))
    assert caught.value.reason == "PORT_INVALID"


def test_pods_run_on_all_hosts_of_a_stack(lamina: Any, ports: int) -> None:
    """Images go to every host, pods are spread, and `--host` looks at one host's lower layers."""
    lamina.run("up", "--hosts", "2", "--port", str(ports), "--seed", "7")
    nodes = lamina.json("get", "nodes")
    assert sorted(node["metadata"]["name"] for node in nodes) == ["h1", "h2"]
    lamina.run("image", "build", "guests/hello.c")
    assert lamina.json("image", "list", "--host", "h2")
    lamina.run("apply", "-f", MANIFEST)
    assert running(lamina) == {"h1", "h2"}
    processes = lamina.json("runtime", "ps", "--host", "h2")
    assert processes and all("/h2/" in item["space"] for item in processes)
    assert "HOST_UNKNOWN" in lamina.run("image", "list", "--host", "h9", expect=1).stderr


def running(lamina: Any) -> set[str]:
    """Returns the nodes on which the deployment's pods run, once all do."""
    end = time.monotonic() + PATIENCE_S
    while True:
        pods = lamina.json("get", "pods")
        if len(pods) == 3 and all(pod["status"].get("phase") == "Running" for pod in pods):
            return {pod["spec"]["nodeName"] for pod in pods}
        assert time.monotonic() < end, pods
