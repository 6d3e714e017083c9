"""Where interrupt messages go: addresses and data of devices, destinations of IPIs. Pure.

    address 0xFEE | destination id (19:12) | redirection hint (3) | destination mode (2)
    data    trigger mode (15) | level (14) | delivery mode (10:8) | vector (7:0)

Source: Intel SDM vol. 3, 11.6.2 (determining the destination), 11.11 (message signalled interrupts).
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina_hardware.domain.apic import page as at
from lamina_hardware.domain.apic.local_apic import Delivery, LocalApic, Message, Mode, Shorthand

_ADDRESS_BASE = 0xFEE
_FLAT = 0xF
_BROADCAST_X = 0xFF
_BROADCAST_X2 = 0xFFFF_FFFF
_LEAST_VECTOR = 16
_MESSAGE_MODES = (Delivery.FIXED, Delivery.LOWEST, Delivery.NMI, Delivery.INIT)


def problem(address: int, data: int) -> str:
    """Returns what is wrong with a message of a device, empty when it is well formed."""
    if address >> 20 != _ADDRESS_BASE:
        return f"has address {address:#x}, which is not 0xfeeXXXXX"
    if data >> 16:
        return f"has data {data:#x}, over 16 bits"
    mode, vector = data >> 8 & 7, data & 0xFF
    if mode not in _MESSAGE_MODES:
        return f"has delivery mode {mode}, which no local APIC here takes from a device"
    if mode in (Delivery.FIXED, Delivery.LOWEST) and vector < _LEAST_VECTOR:
        return f"has vector {vector}, below {_LEAST_VECTOR}"
    return ""


def parse(address: int, data: int) -> Message:
    """Returns the message of a device; `problem` has found nothing."""
    mode = Delivery(data >> 8 & 7)
    hinted = bool(address >> 3 & 1)
    if hinted and mode is Delivery.FIXED:
        mode = Delivery.LOWEST  # the hint asks for one destination only
    return Message(mode, data & 0xFF, address >> 12 & 0xFF, bool(address >> 2 & 1))


def destinations(message: Message, members: Sequence[LocalApic], sender: LocalApic | None) -> list[LocalApic]:
    """Returns the APICs of `members` (by id) that a message reaches, in their order."""
    if message.shorthand is Shorthand.SELF:
        return [sender] if sender is not None else []
    if message.shorthand is Shorthand.ALL:
        found = list(members)
    elif message.shorthand is Shorthand.OTHERS:
        found = [apic for apic in members if apic is not sender]
    else:
        found = [apic for apic in members if accepts(apic, message)]
    if message.delivery is Delivery.LOWEST:
        awake = [apic for apic in found if apic.is_enabled] or found
        return [min(awake, key=_burden)] if awake else []
    return found


def accepts(apic: LocalApic, message: Message) -> bool:
    """Whether an APIC is meant by a message without shorthand."""
    wide = apic.mode is Mode.X2APIC
    if message.destination == (_BROADCAST_X2 if wide else _BROADCAST_X):
        return True
    if message.destination == _BROADCAST_X and not message.logical:
        return True  # a message of a device or of an xAPIC reaches all
    if not message.logical:
        return message.destination == apic.apic_id
    logical = apic.page.get(at.LDR)
    if wide:
        return message.destination >> 16 == logical >> 16 and bool(message.destination & logical & 0xFFFF)
    mine = logical >> 24
    if apic.page.get(at.DFR) >> 28 == _FLAT:
        return bool(message.destination & mine)
    return message.destination >> 4 == mine >> 4 and bool(message.destination & mine & 0xF)


def _burden(apic: LocalApic) -> tuple[int, int]:
    """Orders APICs for a message that one of them takes: the lowest priority, then the lowest id."""
    task = apic.page.get(at.TPR) & 0xFF
    serviced = apic.page.highest(at.ISR)
    return max(task >> 4, serviced >> 4), apic.apic_id
