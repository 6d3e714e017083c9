"""What the demo can be told against, and what is said when it is not there."""

from __future__ import annotations

import socket

import pytest

from lamina_cli.client import home
from lamina_cli.demo.target import COMPOSE, SPLIT, opened, published
from lamina_cli.stack.embedded import Settings
from lamina_kit.errors import InvalidArgument, Unavailable


def test_containers_are_at_their_usual_ports_or_the_chosen_ones() -> None:
    """The variables are those of the compose file; a layer without one has the port that it has everywhere."""
    found = published({"LAMINA_PORT_MMU": "6000", "LAMINA_PORT_CONTAINER_RUNTIME": "6001"})
    assert found["mmu"] == "127.0.0.1:6000" and found["container-runtime"] == "127.0.0.1:6001"
    assert found["hardware"] == f"127.0.0.1:{home.PORTS['hardware']}"
    assert set(found) == set(home.LAYERS)


async def test_missing_containers_are_told_with_what_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody at the ports is no mystery of the transport: the containers are not up."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        for layer in home.LAYERS:
            variable = f"LAMINA_PORT_{layer.upper().replace('-', '_')}"
            monkeypatch.setenv(variable, str(taken.getsockname()[1]))
        with pytest.raises(Unavailable) as caught:
            async with opened(COMPOSE, Settings(), lambda layer: None, None):
                raise AssertionError("a stack answered")
    assert caught.value.reason == "STACK_NOT_UP"
    assert "docker compose up --wait" in caught.value.next_step


async def test_one_event_log_is_that_of_an_embedded_stack() -> None:
    """Six processes have an event log each: a merged one is refused before anything is started."""
    with pytest.raises(InvalidArgument) as caught:
        async with opened(SPLIT, Settings(), lambda layer: None, lambda event: None):
            raise AssertionError("a stack was started")
    assert caught.value.reason == "TOPOLOGY_UNSUPPORTED"
