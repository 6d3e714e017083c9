"""The catalog when the engine or the store refuses, and the numbers that the contract and the domain share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lamina.vswitch.v1 import vswitch_pb2 as pb

from lamina_kit.errors import InvalidArgument, Unavailable
from lamina_vswitch.config import VswitchConfig
from lamina_vswitch.domain.definitions.switches import PortDefinition, SwitchDefinition
from lamina_vswitch.domain.frames.drop_reasons import EXPLANATION, DropReason
from lamina_vswitch.domain.port.queue import MAX_BATCH_BYTES, FrameQueue
from lamina_vswitch.domain.sampling import Sampler
from lamina_vswitch.engines.model.engine import ModelEngine
from lamina_vswitch.io.store.definitions import SqliteStore
from lamina_vswitch.switches.catalog import Catalog, Limits


class RefusingEngine(ModelEngine):
    """An engine that cannot make what it is asked for."""

    refuses = True

    def _refuse(self) -> None:
        if self.refuses:
            raise Unavailable("The kernel said no.", reason="KERNEL_REFUSED")

    def add_switch(self, name: str, switch: SwitchDefinition) -> None:
        """Refuse, or make."""
        self._refuse()
        super().add_switch(name, switch)

    def add_port(self, switch: str, slot: int, name: str, vlan: int, link_up: bool) -> None:
        """Refuse, or make."""
        self._refuse()
        super().add_port(switch, slot, name, vlan, link_up)


@dataclass
class Made:
    """A catalog and what is below it."""

    catalog: Catalog
    engine: RefusingEngine
    store: SqliteStore


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Returns a catalog over an engine that refuses until it is told not to."""
    store = SqliteStore(tmp_path / "vswitch.sqlite")
    store.open()
    engine = RefusingEngine(lambda notice: None)
    return Made(Catalog("h1", engine, store, Limits(4, 4), lambda notice: None), engine, store)


def test_what_the_engine_refuses_is_not_recorded(made: Made) -> None:
    """A refusal leaves no trace in catalog or store, and the same request succeeds later."""
    wanted = SwitchDefinition("s1")
    port = PortDefinition("s1", "p1", "", True, "", 0, 0)
    with pytest.raises(Unavailable, match="kernel"):
        made.catalog.create_switch(wanted, "r1")
    assert made.store.load().switches == []
    made.engine.refuses = False
    assert made.catalog.create_switch(wanted, "r1") == wanted
    made.engine.refuses = True
    with pytest.raises(Unavailable, match="kernel"):
        made.catalog.create_port(port, "r2")
    assert made.store.load().ports == []
    assert made.catalog.ports("s1") == []
    made.engine.refuses = False
    assert made.catalog.create_port(port, "r2").slot == 1


def test_what_the_store_refuses_does_not_happen(made: Made) -> None:
    """Without a store nothing is made, and what was there stays."""
    made.engine.refuses = False
    made.catalog.create_switch(SwitchDefinition("s1"), "")
    made.store.close()
    with pytest.raises(Unavailable):
        made.catalog.create_switch(SwitchDefinition("s2"), "")
    with pytest.raises(Unavailable):
        made.catalog.delete_switch("s1", force=False, now_ns=0)
    assert [switch.switch for switch in made.catalog.switches()] == ["s1"]


def test_reasons_have_the_numbers_of_the_contract() -> None:
    """Domain and contract number drop reasons alike, each explained; those that no engine gives yet are 12 to 48."""
    names = {f"DROP_REASON_{reason.name}": reason.value for reason in DropReason}
    contract = dict(pb.DropReason.items())
    assert {name: contract.get(name) for name in names} == names
    missing = sorted(number for name, number in contract.items() if name not in names)
    assert [number for number in missing if not 12 <= number <= 48] == [0]
    assert sorted(EXPLANATION) == sorted(DropReason)


def test_limits_of_the_configuration_are_checked() -> None:
    """A configuration out of range names its keys."""
    with pytest.raises(InvalidArgument) as caught:
        VswitchConfig(max_switches=0, max_ports=1 << 20)
    assert [violation.field for violation in caught.value.violations] == ["vswitch.max_switches", "vswitch.max_ports"]


def test_a_ring_is_bounded_and_says_what_it_refused() -> None:
    """The first frames stay, the rest is counted once, and draining makes room."""
    ring = FrameQueue(3)
    assert ring.push([b"1", b"2"]) == 2
    assert ring.push([b"3", b"4", b"5"]) == 1
    assert ring.drain() == ([b"1", b"2", b"3"], 2)
    assert ring.push([b"6"]) == 1
    assert ring.drain() == ([b"6"], 0)


def test_a_batch_fits_a_message() -> None:
    """However long the frames, a batch stays below the largest message, and nothing is lost or reordered."""
    ring = FrameQueue(8192)
    frames = [bytes([number % 256]) * 9018 for number in range(1000)]
    assert ring.push(frames) == 1000
    drained: list[bytes] = []
    while len(ring):
        batch, _ = ring.drain()
        assert sum(map(len, batch)) <= MAX_BATCH_BYTES
        drained += batch
    assert drained == frames


def test_sampling_counts_what_it_leaves_out() -> None:
    """Events a second apart together stand for everything that happened up to the last of them."""
    sampler = Sampler(period_ns=10)
    counts = [sampler.sample("port", "drop", 1, now) for now in range(25)]
    assert [count for count in counts if count] == [1, 10, 10]
    assert sampler.sample("other", "drop", 5, 24) == 5
    sampler.forget("port")
    assert sampler.sample("port", "drop", 1, 24) == 1


def test_restoring_needs_what_was_recorded(made: Made, tmp_path: Path) -> None:
    """A second catalog over the same store makes the same things in a fresh engine."""
    made.engine.refuses = False
    made.catalog.create_switch(SwitchDefinition("s1"), "")
    port = made.catalog.create_port(PortDefinition("s1", "p1", "", False, "h1/vm", 0, 0), "")
    engine: Any = ModelEngine(lambda notice: None)
    again = Catalog("h1", engine, made.store, Limits(4, 4), lambda notice: None)
    again.restore(0)
    assert again.ports("s1") == [port]
    assert again.owners() == ["h1/vm"]
    assert engine.tally("hosts/h1/switches/s1", 0).mac_entries == 0
