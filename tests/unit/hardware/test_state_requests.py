"""What interrupts, APICs and registers may be given: bounds are taken, a step beyond is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from lamina.hardware.v1 import interrupts_pb2, registers_pb2
from tests.unit.hardware.requests import check_each, made, wrong

from lamina_hardware.contexts import register_checks
from lamina_hardware.convert import interrupts
from lamina_hardware.convert.registers import ALL_GROUPS
from lamina_hardware.domain.contexts.context import Context
from lamina_hardware.engines.model.engine import ContextWish, ModelEngine

RAM = 64 << 20
PAGE = 4096
SIGNAL = interrupts_pb2.ContextSignal
FIXED, NMI, STARTUP = SIGNAL.KIND_FIXED, SIGNAL.KIND_NMI, SIGNAL.KIND_STARTUP


def _one(**fields: Any) -> Any:
    return interrupts_pb2.Interrupt(**fields)


def test_interrupts() -> None:
    """Vectors of 16 to 255 for a fixed interrupt, none for an NMI; each names its destination."""

    def take(*given: Any, domain: str = "") -> list[str]:
        request = interrupts_pb2.RaiseInterruptsRequest(interrupts=given, interrupt_domain=domain)
        return wrong(lambda: interrupts.check_interrupts(request))

    for kind, vectors in ((FIXED, (16, 255)), (0, (16, 255)), (STARTUP, (0, 255)), (NMI, (0,))):
        for vector in vectors:
            assert take(_one(context=made(SIGNAL, {"kind": kind}, {"vector": vector})), domain="x" * 256) == []
    for kind, vectors in ((FIXED, (15, 256)), (STARTUP, (256,)), (NMI, (2,))):
        for vector in vectors:
            wanted = ["interrupts[0].context.vector"]
            assert take(_one(context=made(SIGNAL, {"kind": kind}, {"vector": vector}))) == wanted, (kind, vector)
    fine = _one(context=SIGNAL(kind=NMI))
    assert take(fine, _one(context=made(SIGNAL, {"kind": 99}, {}))) == ["interrupts[1].context.kind"]
    assert take(fine, _one()) == ["interrupts[1]"]
    assert take(_one(message=interrupts_pb2.MessageSignal(address=1, data=0x30))) == ["interrupts[0].message"]
    assert take(_one(message=interrupts_pb2.MessageSignal(address=0xFEE0_0000, data=0x30))) == []
    assert take() == take(*[fine] * (interrupts.MAX_INTERRUPTS + 1)) == ["interrupts"]
    assert take(*[fine] * interrupts.MAX_INTERRUPTS) == []
    assert take(fine, domain="x" * 257) == ["interrupt_domain"]


def test_local_apics() -> None:
    """Pages and descriptors lie whole in RAM and apart; ids fit the mode; what starts itself has a second stage."""
    apic = interrupts_pb2.Apic
    engine = ModelEngine(1, 4)
    alone: Context = engine.create_context(ContextWish("", "", 0, 0, False, True, "", "me"))
    guest: Context = engine.create_context(ContextWish("", "", PAGE, 0, False, True, "", "me"))
    base = {"mode": apic.MODE_X2APIC, "page_address": PAGE, "descriptor_address": 2 * PAGE}
    check_each(
        lambda **fields: made(apic, base, fields),
        lambda message: interrupts.apic_wish(message, alone, RAM),
        [{}, {"mode": apic.MODE_NONE}, {"mode": apic.MODE_XAPIC, "apic_id": 254}, {"apic_id": 65535},
         {"interrupt_domain": "x" * 256}, {"page_address": RAM - PAGE}, {"descriptor_address": RAM - 64},
         {"descriptor_address": PAGE - 64}, {"base_gpa": (1 << 48) - PAGE},
         {"timer_frequency_hz": interrupts._LEAST_HZ},
         {"timer_frequency_hz": interrupts._MOST_HZ}, {"end_exits": [1, 2, 3, 4]}],
        [("apic.mode", {"mode": 99}), ("apic.apic_id", {"mode": apic.MODE_XAPIC, "apic_id": 255}),
         ("apic.apic_id", {"apic_id": 65536}), ("apic.interrupt_domain", {"interrupt_domain": "x" * 257}),
         ("apic.page_address", {"page_address": 0}),
         ("apic.page_address", {"page_address": PAGE + 64, "descriptor_address": 8 * PAGE}),
         ("apic.descriptor_address", {"descriptor_address": 0}),
         ("apic.descriptor_address", {"descriptor_address": 2 * PAGE + 8}),
         ("apic.descriptor_address", {"descriptor_address": PAGE}),
         ("apic.descriptor_address", {"descriptor_address": 2 * PAGE - 64}),
         ("apic.base_gpa", {"base_gpa": 8}), ("apic.base_gpa", {"base_gpa": 1 << 48}),
         ("apic.timer_frequency_hz", {"timer_frequency_hz": interrupts._LEAST_HZ - 1}),
         ("apic.timer_frequency_hz", {"timer_frequency_hz": interrupts._MOST_HZ + 1}),
         ("apic.end_exits", {"end_exits": [1]}), ("apic.starts_itself", {"starts_itself": True}),
         ("ADDRESS_OUTSIDE_RAM", {"page_address": RAM}), ("ADDRESS_OUTSIDE_RAM", {"descriptor_address": RAM})],
    )  # fmt: skip
    wish = interrupts.apic_wish(made(apic, base, {"starts_itself": True, "end_exits": [1, 0, 0, 2]}), guest, RAM)
    assert wish is not None
    assert (wish.starts_itself, wish.end_exits, wish.domain) == (True, 1 | 2 << 192, guest.domain)
    named = interrupts.apic_wish(made(apic, base, {"interrupt_domain": "vm"}), guest, RAM)
    assert named is not None and named.domain == "me:vm"


GROUP = registers_pb2


def _segments(**fields: Any) -> registers_pb2.Registers:
    made = registers_pb2.Registers()
    for _ in range(8):
        made.segments.add()
    for name, value in fields.items():
        setattr(made.segments[3], name, value)
    return made


def _flow(**fields: Any) -> registers_pb2.Registers:
    return registers_pb2.Registers(flow=registers_pb2.FlowState(**fields))


def _event(**fields: Any) -> registers_pb2.Registers:
    return registers_pb2.Registers(event=registers_pb2.PendingEvent(**fields))


EVENT = registers_pb2.PendingEvent
BEYOND = 1 << 47
"""The first address that is not canonical."""


@pytest.mark.parametrize(
    ("group", "good", "bad"),
    [
        (GROUP.REGISTER_GROUP_GENERAL, [registers_pb2.Registers(general=range(16))],
         [("general", registers_pb2.Registers(general=range(15)))]),
        (GROUP.REGISTER_GROUP_FLOW, [_flow(rip=BEYOND - 1, cpl=3, rflags=0x202), _flow()],
         [("flow.rip", _flow(rip=BEYOND)), ("flow.cpl", _flow(cpl=1)), ("flow.rflags", _flow(rflags=1 << 63)),
          ("flow.activity", _flow(activity=99)), ("flow.rflags", _flow(rflags=1 << 17))]),
        (GROUP.REGISTER_GROUP_SEGMENTS, [_segments(selector=0xFFFF, limit=0xFFFF_FFFF, base=BEYOND - 1)],
         [("segments", registers_pb2.Registers()), ("segments.selector", _segments(selector=0x1_0000)),
          ("segments.base", _segments(base=BEYOND)), ("segments.attributes", _segments(attributes=1 << 31))]),
        (GROUP.REGISTER_GROUP_FLOATING, [registers_pb2.Registers(floating=bytes(512))],
         [("floating", registers_pb2.Registers(floating=bytes(511))),
          ("floating", registers_pb2.Registers(floating=bytes(26) + b"\1" + bytes(485)))]),
        (GROUP.REGISTER_GROUP_DEBUG, [registers_pb2.Registers(debug=registers_pb2.DebugRegisters(addresses=range(4)))],
         [("debug.addresses", registers_pb2.Registers(debug=registers_pb2.DebugRegisters(addresses=range(3))))]),
        (GROUP.REGISTER_GROUP_EVENT,
         [registers_pb2.Registers(), _event(kind=EVENT.KIND_EXCEPTION, vector=31, error_code=0xFFFF_FFFF),
          _event(kind=EVENT.KIND_NMI, vector=2), _event(kind=EVENT.KIND_EXTERNAL, vector=255)],
         [("event.vector", _event(kind=EVENT.KIND_EXCEPTION, vector=32)),
          ("event.vector", _event(kind=EVENT.KIND_EXTERNAL, vector=256)),
          ("event.vector", _event(kind=EVENT.KIND_NMI, vector=3)), ("event.kind", _event(kind=0)),
          ("event.error_code", _event(kind=EVENT.KIND_EXTERNAL, vector=255, error_code=1))]),
    ],
)  # fmt: skip
def test_registers(group: int, good: list[Any], bad: list[tuple[str, Any]]) -> None:
    """Each group is refused by the register that is wrong; a group that is not written is not looked at."""
    for message in good:
        assert wrong(lambda message=message: register_checks.check_registers(message, [group], 0, 0)) == []  # type: ignore[misc]
    for field, message in bad:
        found = wrong(lambda message=message: register_checks.check_registers(message, [group], 0, 0))  # type: ignore[misc]
        assert found == [f"registers.{field}"]
        assert wrong(lambda message=message: register_checks.check_registers(message, [], 0, 0)) == []  # type: ignore[misc]


def test_groups_of_registers() -> None:
    """Each group once; all that are named are there; registers that the context has, at most 256."""
    groups = list(ALL_GROUPS)
    assert wrong(lambda: register_checks.check_groups(groups, required=True)) == []
    assert wrong(lambda: register_checks.check_groups([], required=False)) == []
    assert wrong(lambda: register_checks.check_groups([], required=True)) == ["groups"]
    assert wrong(lambda: register_checks.check_groups([1, 1], required=True)) == ["groups"]
    assert wrong(lambda: register_checks.check_groups([99], required=True)) == ["groups"]
    assert wrong(lambda: register_checks.check_msrs([5] * 256, [5])) == []
    assert wrong(lambda: register_checks.check_msrs([5] * 257, [5])) == ["msrs"]
    assert wrong(lambda: register_checks.check_msrs([5, 6], [5])) == ["MSR_UNKNOWN"]
