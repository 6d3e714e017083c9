"""Devices of the kernel at their edges: uplinks, floods that never stop, changes half way."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator

import pytest
from tests.linux.vswitch.device_bench import ALL, SWITCH, A, B, Bench, Sink, frame, long_tcp, open_files, opened, tag

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.domain.backend.definition import Veth
from lamina_vswitch.domain.policy.settings import PolicyInForce, Security
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.domain.uplink.teaming import Team
from lamina_vswitch.ebpf.assembler import Program
from lamina_vswitch.engines.linux.bpf import classifiers
from lamina_vswitch.engines.linux.bridge import kernel
from lamina_vswitch.engines.linux.netlink.requests import Netlink
from lamina_vswitch.engines.linux.nft.rules import FilteredPort
from lamina_vswitch.engines.linux.nft.table import NftTable
from lamina_vswitch.io.backends.veth import VethBackend


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Returns a switch in the kernel."""
    with opened() as made:
        yield made


def test_frames_of_devices_leave_the_host_once(bench: Bench) -> None:
    """The kernel floods to every uplink; one of them sends, also to a station that was heard at another one."""
    bench.veth(1)
    for slot in (2, 3):
        bench.port(slot)
        bench.engine.set_uplink(slot, True, 0)
    bench.engine.set_teams(SWITCH, {"": Team(active=(2,), standby=(3,))}, 0)
    bench.send(1, frame(ALL, A), frame(B, A))
    assert (bench.heard(2), bench.heard(3)) == ([frame(ALL, A), frame(B, A)], [])
    bench.engine.transmit(2, [frame(A, B)], 0)
    assert bench.heard(1) == [frame(A, B)]
    bench.engine.set_teams(SWITCH, {"": Team(active=(3,), standby=(2,))}, 0)
    bench.send(1, frame(B, A), frame(ALL, A))
    assert (bench.heard(2), bench.heard(3)) == ([], [frame(B, A), frame(ALL, A)])


def test_no_device_is_the_wire_of_an_uplink(bench: Bench) -> None:
    """A team's one way out would be all of them: it is refused, and nothing is left on the machine."""
    bench.port(2)
    bench.engine.set_uplink(2, True, 0)
    with pytest.raises(FailedPrecondition) as refused:
        bench.network.do(lambda: VethBackend(bench.engine, 2, Veth("dev2")))
    assert (refused.value.reason, "teaming" in refused.value.message) == ("POLICY_NOT_IN_KERNEL", True)
    assert bench.network.do(lambda: "dev2" not in [name for _, name in socket.if_nameindex()])


def test_a_device_that_never_stops_leaves_time_for_others(bench: Bench) -> None:
    """What is there is taken in turns of the loop, in its order, and nothing is lost between two of them."""
    bench.veth(1)
    bench.port(2)
    sent = [frame(ALL, A, size=60 + number) for number in range(150)]
    for each in sent:
        bench.ends[1].send(each)
    turns: list[list[bytes]] = []
    while sum(map(len, turns)) < len(sent):
        assert select.select([bench.engine.kernel.descriptor], [], [], 20)[0]
        bench.engine.listen_outside(0)
        turns.append(bench.heard(2))
    assert [each for turn in turns for each in turn] == sent
    assert max(map(len, turns)) <= 64


def test_work_left_to_do_is_done_by_who_can(bench: Bench) -> None:
    """UDP in segments comes to a port of this process as datagrams, long TCP cut, and no frame becomes thousands."""
    bench.veth(1)
    bench.port(2)
    bench.ends[1].setsockopt(263, 15, 1)  # PACKET_VNET_HDR
    header, tcp = long_tcp(4000)
    udp = tcp[:23] + b"\x11" + tcp[24:34] + struct.pack(">HHHH", 1, 2, 4008, 0) + bytes(4000)
    udp = udp[:16] + struct.pack(">H", 4028) + udp[18:]
    bench.ends[1].send(struct.pack("<BBHHHH", 1, 5, 42, 1000, 34, 6) + udp)
    bench.engine.listen_outside(0)
    assert [(len(each), each[23]) for each in bench.heard(2)] == [(1042, 17)] * 4
    bench.ends[1].send(header + tcp)
    bench.engine.listen_outside(0)
    assert [(len(each), each[23]) for each in bench.heard(2)] == [(1454, 6), (1454, 6), (1254, 6)]
    bench.ends[1].send(header[:4] + struct.pack("<H", 1) + header[6:] + tcp)
    bench.engine.listen_outside(0)
    assert (bench.heard(2), bench.drops(2)) == ([], {"OFFLOAD_INVALID": 1})


def test_frames_come_in_when_the_rules_hold(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a port changes its VLANs, what its device sends meets the new policy or nothing."""
    guarded = {"security": Security(dhcp_guard=True)}
    bench.veth(1, 10, trunk=Trunk(((10, 10),), 10), **guarded)
    bench.veth(2, 11)
    offer = b"\x08\x00\x45\0\0\x1c" + bytes(4) + b"\x40\x11\0\0" + bytes(8) + b"\0\x43\0\x44\0\x08\0\0"
    let_hold, tried = NftTable.set, []

    def sent_before(table: NftTable, port: FilteredPort) -> None:
        for tags in (b"", tag(11)):
            bench.ends[1].send(frame(ALL, A, tags, offer, 80))
        tried.append(port.devices)
        let_hold(table, port)

    monkeypatch.setattr(NftTable, "set", sent_before)
    bench.let(1, 10, trunk=Trunk(((10, 11),), 10), **guarded)
    bench.let(1, 11, **guarded)
    assert len(tried) >= 3
    monkeypatch.undo()
    assert bench.heard(2) == []
    bench.send(1, frame(ALL, A, b"", offer, 80), frame(ALL, A))
    assert bench.heard(2) == [frame(ALL, A)]


def test_a_device_that_came_half_way_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel refuses a program, the port stays one of this process, no file stays open, and it can be tried
    again."""
    bench.port(2)
    bench.port(3, 10)
    bench.engine.add_port(SWITCH, 1, f"{SWITCH}/ports/p1", 0, True)
    attach, attached = classifiers.attach, []

    def refuse(netlink: Netlink, index: int, end: int, program: Program, name: str, *frames: int) -> None:
        attached.append(name)
        if name == refused:
            raise FailedPrecondition("no", reason="BPF_REFUSED", next_step="none")
        attach(netlink, index, end, program, name, *frames)

    monkeypatch.setattr(classifiers, "attach", refuse)
    trunk = Trunk(((10, 10),), 10)
    for each, policy in (
        *((name, PolicyInForce()) for name in ("lamina-gate", "lamina-stripper")),
        *((name, PolicyInForce(trunk=trunk)) for name in ("lamina-splitter", "lamina-joiner")),
    ):
        refused = each
        bench.engine.set_policy(1, 10 if policy.trunk else 0, policy, 0)
        before = sorted(name for _, name in open_files())
        with pytest.raises(FailedPrecondition):
            bench.network.do(lambda: VethBackend(bench.engine, 1, Veth("dev1")))
        assert (attached[-1], sorted(name for _, name in open_files())) == (each, before)
    monkeypatch.undo()
    bench.let(1)
    bench.sinks[1] = Sink()
    bench.engine.attach(1, bench.sinks[1], 0)
    bench.engine.transmit(2, [frame(ALL, B)], 0)
    assert bench.heard(1) == [frame(ALL, B)]
    bench.engine.detach(1, bench.sinks.pop(1), 0)
    made = bench.network.do(lambda: VethBackend(bench.engine, 1, Veth("dev1", up=True)))
    bench.engine.attach(1, made, 0, made.takes)
    bench.veths[1], bench.ends[1] = made, bench.network.end("dev1")
    bench.send(1, frame(ALL, A))
    assert bench.heard(2) == [frame(ALL, A)]


@pytest.mark.parametrize("limit", ["MOST_BRIDGES", "most_taps"])
def test_a_trunk_that_speaks_in_every_vlan_stops_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Where there is no room for a further VLAN its frames are lost; those of the others go on, and no file is left."""
    for slot in (1, 2):
        bench.port(slot)
        bench.let(slot, trunk=Trunk())
    bench.engine.transmit(1, [frame(ALL, A), frame(ALL, A, tag(5))], 0)
    assert len(bench.heard(2)) == 2
    if limit == "MOST_BRIDGES":
        monkeypatch.setattr(kernel, limit, 2)
    else:
        monkeypatch.setattr(bench.engine.kernel, limit, 5)
    before = open_files()
    assert bench.engine.transmit(1, [frame(ALL, A, tag(vlan)) for vlan in range(6, 20)], 0) == 14
    assert (bench.drops(1), open_files() - before) == ({"KERNEL": 14}, set())
    bench.engine.transmit(1, [frame(ALL, A), frame(ALL, A, tag(5))], 0)
    assert bench.heard(2) == [frame(ALL, A), frame(ALL, A, tag(5))]
