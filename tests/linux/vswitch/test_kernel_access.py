"""Access ports that are devices of the kernel: the device itself is a port of the bridge, and follows its carrier."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from tests.linux.vswitch.device_bench import ALL, SWITCH, A, B, Bench, C, D, frame, open_files, opened, tag
from tests.linux.vswitch.test_kernel_watching import Ears

from lamina_kit.errors import FailedPrecondition
from lamina_vswitch.domain.backend.definition import Veth
from lamina_vswitch.domain.definitions.switches import SwitchDefinition
from lamina_vswitch.domain.policy.settings import Security, Shaping
from lamina_vswitch.domain.policy.trunk import Trunk
from lamina_vswitch.engines.linux.bpf import classifiers
from lamina_vswitch.engines.linux.netlink import links
from lamina_vswitch.engines.linux.refusal import KernelRefusal
from lamina_vswitch.io.backends.veth import VethBackend


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Returns a switch in the kernel."""
    with opened() as made:
        yield made


def devices(bench: Bench) -> list[str]:
    """Return what lies in the namespace of the engine, in order."""
    with bench.engine.kernel.namespace.inside():
        return sorted(name for _, name in socket.if_nameindex() if name != "lo")


def known(bench: Bench, slot: int) -> list[bytes]:
    """Return the addresses that were learned at a port."""
    return [entry.mac for entry in bench.engine.mac_entries(SWITCH, 0) if entry.slot == slot]


def bring(bench: Bench, slot: int, state: str) -> None:
    """Bring an interface up or down as its user does; the kernel has noticed at the port when this returns."""
    bench.network.run(f"ip link set dev{slot} {state}")
    bench.ends[slot].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # it tells once that the interface was down
    bench.engine.kernel.devices.show_link(slot, up=True)


def refuse(monkeypatch: Any, program: str) -> None:
    """Have the kernel refuse a program from now on."""

    def attach(netlink: Any, index: int, end: int, made: Any, name: str, *frames: int) -> None:
        if name == program:
            raise FailedPrecondition("It is refused.", reason="BPF_REFUSED", next_step="Do nothing.")
        attach_it(netlink, index, end, made, name, *frames)

    attach_it = classifiers.attach
    monkeypatch.setattr(classifiers, "attach", attach)


def test_an_access_port_has_no_devices_but_its_own(bench: Bench) -> None:
    """A trunk has a pair for each VLAN, an access port none, also when it was a trunk before."""
    bench.veth(1, 7)
    bench.veth(2, 7, trunk=Trunk(((8, 8),), 7))
    assert devices(bench) == ["d1", "d2", "s1v7", "s1v8", "t2v7", "t2v7x", "t2v8", "t2v8x"]
    bench.let(2, 7)
    assert devices(bench) == ["d1", "d2", "s1v7"]
    bench.send(1, frame(ALL, A))
    assert bench.heard(2) == [frame(ALL, A)]


def test_tags_at_access_ports(bench: Bench) -> None:
    """The port's own VLAN by its number or by none is let in, a tag within is nobody's business, others are counted;
    so it is too where what comes in is shaped."""
    bench.veth(1, 7)
    bench.veth(2, 7)
    bench.ends[2].setsockopt(263, 8, 1)  # PACKET_AUXDATA
    passing, within = (tag(7, 3), tag(0, 5)), tag(7) + tag(9)
    for policy, dropped in (({}, 3), ({"ingress_shaping": Shaping(8_000_000, burst=100_000)}, 6), ({}, 9)):
        bench.let(1, 7, **policy)
        for tags in (*passing, within, tag(8), b"\x88\xa8" + tag(7)[2:], tag(8) + tag(7), b""):
            bench.send(1, frame(ALL, A, tags))
        bare = frame(ALL, A)[:56]
        heard = [each[:56] for each in bench.heard(2)]
        assert heard == [bare, bare, frame(ALL, A, tag(9))[:56], bare]
        assert bench.drops(1) == {"VLAN_MISMATCH": dropped}
    assert bench.engine.counters(1).received_frames == 3 * 7


def test_a_port_follows_the_carrier_of_its_interface(bench: Bench) -> None:
    """What was learned behind an interface that goes down is forgotten; when it comes back, frames pass."""
    for slot in (1, 2, 3):
        bench.veth(slot)
    bench.send(1, frame(ALL, A))
    bench.send(2, frame(ALL, B))
    assert (known(bench, 1), known(bench, 2)) == ([A], [B])
    bring(bench, 1, "down")
    assert (known(bench, 1), known(bench, 2)) == ([], [B])
    bench.heard(3)
    bench.send(2, frame(A, B))
    assert bench.heard(3) == [frame(A, B)]
    bring(bench, 1, "up")
    bench.send(1, frame(B, A))
    assert bench.heard(2)[-1] == frame(B, A)
    assert known(bench, 1) == [A]


def test_a_port_that_takes_no_part_stays_out(bench: Bench) -> None:
    """The destination of a mirror gets copies alone and sends nothing, whatever its carrier does; then it is back."""
    for slot in (1, 2, 3):
        bench.veth(slot, security=Security(dhcp_guard=True))
    bench.engine.set_copies_only(2, True, 0)
    for _ in range(2):
        bench.send(2, frame(ALL, B), frame(ALL, B, tag(9)))
        bench.send(1, frame(ALL, A))
        assert (bench.heard(1), bench.heard(2), len(bench.heard(3))) == ([], [], 1)
        assert bench.drops(2) == {}
        assert bench.engine.copy(2, [frame(ALL, C)], 0) == 1
        assert bench.heard(2) == [frame(ALL, C)]
        for state in ("down", "up"):
            bring(bench, 2, state)
    assert known(bench, 2) == []
    bench.engine.set_copies_only(2, False, 0)
    bench.send(2, frame(ALL, B))
    bench.send(1, frame(B, A))
    assert (bench.heard(2), bench.heard(3)) == ([frame(B, A)], [frame(ALL, B)])


def test_a_link_that_is_taken_away_and_given_back(bench: Bench) -> None:
    """The interface has no carrier meanwhile, and static entries are where they were."""
    bench.veth(1)
    bench.veth(2)
    bench.veth(3)
    bench.engine.add_static(SWITCH, 0, D, 2, 0)
    for _ in range(2):
        bench.engine.set_link(2, False, 0)
        bench.send(1, frame(D, A), frame(ALL, A))
        assert (bench.heard(2), bench.heard(3)) == ([], [frame(ALL, A)])
        bench.engine.set_link(2, True, 0)
        bench.send(1, frame(D, A))
        assert (bench.heard(2), bench.heard(3)) == ([frame(D, A)], [])
    assert [each.event for each in bench.notices if each.event == "kernel.refused"] == []


def test_an_interface_that_was_taken_away_stops_nobody(bench: Bench) -> None:
    """Its port can be changed and be given up; frames of the others pass, and the kernel refuses nothing."""
    bench.veth(1, security=Security(dhcp_guard=True))
    bench.veth(2)
    bench.port(3)
    bench.engine.add_static(SWITCH, 0, D, 1, 0)
    bench.network.run("ip link del dev1")
    bench.engine.add_static(SWITCH, 0, C, 1, 0)
    bench.engine.update_switch(SWITCH, SwitchDefinition("s", mac_limit=3, mtu_bytes=2000), 0)
    bench.send(2, frame(D, B), frame(ALL, B))
    assert bench.heard(3) == [frame(ALL, B)]
    assert bench.engine.transmit(3, [frame(B, A), frame(ALL, A)], 0) == 0
    assert bench.heard(2)[-2:] == [frame(B, A), frame(ALL, A)]
    bench.let(1, isolated=True, security=Security(router_guard=True))
    bench.let(1)
    bench.veths[1].close()
    bench.engine.detach(1, bench.veths.pop(1), 0)
    bench.ends.pop(1).close()
    assert [dict(each.inputs)["why"] for each in bench.notices if each.event == "kernel.refused"] == []
    bench.veth(4, security=Security(dhcp_guard=True))
    bench.send(4, frame(ALL, A))
    assert bench.heard(3) == [frame(ALL, A)]


def test_a_detour_that_is_refused_leaves_no_trace(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port lets frames in as before, also after its link was away, and can be watched."""
    bench.veth(1)
    bench.veth(2)
    policies: dict[str, Any] = {"lamina-gate": {}, "lamina-detour": {"trunk": Trunk(((0, 0),), 0)}}
    for program, policy in policies.items():
        bench.let(1, **policy)
        refuse(monkeypatch, program)
        with pytest.raises(FailedPrecondition):
            bench.let(1, ingress_shaping=Shaping(8_000_000, burst=100_000), **policy)
        monkeypatch.undo()
        bench.let(1, **policy)
        for up in (False, True):
            bench.engine.set_link(1, up, 0)
        bench.engine.observer = Ears(1)
        bench.send(1, frame(ALL, A))
        assert bench.heard(2) == [frame(ALL, A)]
        assert 1 in bench.engine.kernel.devices.watches
        bench.engine.observer = None
    assert [name for name in devices(bench) if name.startswith("i")] == []


def test_a_port_leaves_its_bridge_whatever_the_kernel_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that takes no part is out though its gate stays open, or though it was refused half way in."""
    for slot in (1, 2, 3):
        bench.veth(slot)

    def refuses(*_: object) -> None:
        raise KernelRefusal("a request", 12)

    refuse(monkeypatch, "lamina-gate")
    bench.engine.set_copies_only(2, True, 0)
    for half_way in (False, True):
        if half_way:
            monkeypatch.setattr(links, "set_port", refuses)
            for copies_only in (False, True):
                bench.engine.set_copies_only(2, copies_only, 0)
        bench.send(2, frame(ALL, B))
        bench.send(1, frame(ALL, A))
        assert (bench.heard(1), bench.heard(2), bench.heard(3)) == ([], [], [frame(ALL, A)])
        monkeypatch.undo()
    bench.engine.set_copies_only(2, False, 0)
    bench.send(2, frame(ALL, B))
    assert bench.heard(1) == [frame(ALL, B)]


def test_a_device_goes_though_its_rules_cannot(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it stays, what is refused is told, and the rules go before the next device of the port comes."""
    nft = shutil.which("nft") or ""
    bench.veth(2)
    before = open_files()
    bench.veth(1, security=Security(dhcp_guard=True))
    bench.ends.pop(1).close()
    monkeypatch.setenv("PATH", "/nowhere")
    bench.engine.detach(1, bench.veths[1], 0)
    bench.veths.pop(1).close()
    monkeypatch.undo()
    assert [name for name in devices(bench) if not name.startswith("p1")] == ["d2", "s1v0"]
    assert "kernel.refused" in [each.event for each in bench.notices]
    bench.let(1)
    again = bench.network.do(lambda: VethBackend(bench.engine, 1, Veth("dev1", up=True)))
    with bench.engine.kernel.namespace.inside():
        rules = subprocess.run([nft, "list", "ruleset"], capture_output=True, text=True, timeout=60).stdout
    assert "p1_" not in rules
    again.close()
    assert {file for file in open_files() - before if "tun" not in file[1]} == set()


def test_who_cannot_be_listened_to_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that the kernel refuses half way is none, and comes with the next change of the port."""
    bench.veth(1)
    refuse(monkeypatch, "lamina-stripper")
    bench.engine.observer = Ears(1)
    assert 1 not in bench.engine.kernel.devices.watches
    monkeypatch.undo()
    bench.let(1)
    assert 1 in bench.engine.kernel.devices.watches
    refuse(monkeypatch, "lamina-stripper")
    bench.engine.observer = None
    assert devices(bench) == ["d1", "s1v0"]


@pytest.mark.parametrize("program", ["", "lamina-gate"])
def test_a_port_that_comes_back_waits_for_its_rules(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """What changed while it took no part holds before a frame comes in, also where its gate could not be closed when
    it left; until then frames only leave by it."""
    bench.veth(1)
    bench.veth(2)
    refuse(monkeypatch, program)
    bench.engine.set_copies_only(2, True, 0)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FailedPrecondition):
        bench.let(2, security=Security(reject_forged_transmits=True), mac=A)
    bench.engine.set_copies_only(2, False, 0)
    bench.send(2, frame(ALL, A), frame(ALL, B))
    bench.send(1, frame(ALL, C))
    assert (bench.heard(1), bench.heard(2)) == ([], [frame(ALL, C)])
    monkeypatch.undo()
    bench.let(2, security=Security(reject_forged_transmits=True), mac=A)
    bench.send(2, frame(ALL, A), frame(ALL, B))
    assert bench.heard(1) == [frame(ALL, A)]
