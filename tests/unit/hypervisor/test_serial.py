"""The 16550A, register by register, and its log."""

from __future__ import annotations

import pytest

from lamina_hypervisor.domain.devices.serial import INPUT_LIMIT, Serial
from lamina_hypervisor.domain.devices.serial_log import PIECE, SerialLog
from lamina_kit.errors import OutOfRange, ResourceExhausted

THR, IER, IIR, LCR, MCR, LSR, MSR, SCR = 0, 1, 2, 3, 4, 5, 6, 7


def test_a_byte_written_is_a_byte_sent() -> None:
    """Every write of THR sends one byte, in order."""
    port = Serial()
    for byte in b"hi":
        port.write(THR, byte)
    assert port.take_output() == b"hi"
    assert port.sent == 2
    assert port.take_output() == b""


def test_the_divisor_hides_the_data_register() -> None:
    """With DLAB set offsets 0 and 1 are the divisor; nothing is sent."""
    port = Serial()
    port.write(LCR, 0x83)
    port.write(0, 0x0C)
    port.write(1, 0x00)
    assert (port.read(0), port.read(1)) == (0x0C, 0x00)
    assert [port.register_name(offset, write=True) for offset in (0, 1)] == ["dll", "dlm"]
    port.write(LCR, 0x03)
    assert port.sent == 0
    assert port.register_name(0, write=True) == "thr"
    assert port.register_name(0, write=False) == "rbr"


def test_the_line_status_says_data_ready() -> None:
    """LSR has bit 0 while input waits, and bits 5 and 6 always: the transmitter is never busy."""
    port = Serial()
    assert port.read(LSR) == 0x60
    port.feed(b"x")
    assert port.read(LSR) == 0x61
    assert port.read(THR) == ord("x")
    assert port.read(LSR) == 0x60
    assert port.read(THR) == 0


def test_input_raises_the_interrupt_when_it_is_enabled() -> None:
    """The interrupt is a level: it stands while enabled input waits."""
    port = Serial()
    port.feed(b"ab")
    assert not port.interrupt
    port.write(IER, 0x01)
    assert port.interrupt
    assert port.read(IIR) == 0x04
    port.read(THR)
    assert port.interrupt
    port.read(THR)
    assert not port.interrupt
    assert port.read(IIR) == 0x01


def test_the_empty_transmitter_interrupts_once() -> None:
    """Enabling the transmitter's interrupt raises it; reading IIR takes it away; a byte sent raises it again."""
    port = Serial()
    port.write(IER, 0x02)
    assert port.interrupt
    assert port.read(IIR) & 0x0F == 0x02
    assert not port.interrupt
    port.write(THR, 65)
    assert port.interrupt


def test_loopback_returns_what_is_sent() -> None:
    """With MCR bit 4 a byte comes back as input and leaves nothing on the line."""
    port = Serial()
    port.write(MCR, 0x10)
    port.write(THR, 0x5A)
    assert port.read(THR) == 0x5A
    assert port.sent == 0


def test_the_fifo_is_cleared_and_shown() -> None:
    """FCR bit 1 drops unread input; IIR shows that the FIFO is on."""
    port = Serial()
    port.feed(b"xyz")
    port.write(IIR, 0x03)
    assert port.pending_input == 0
    assert port.read(IIR) & 0xC0 == 0xC0


def test_status_registers_cannot_be_written() -> None:
    """Writes of LSR and MSR change nothing; the scratch register keeps what it gets."""
    port = Serial()
    for offset in (LSR, MSR, SCR):
        port.write(offset, 0xAA)
    assert (port.read(LSR), port.read(MSR), port.read(SCR)) == (0x60, 0xB0, 0xAA)


def test_input_beyond_the_limit_is_refused_whole() -> None:
    """When the guest does not read, input stops at 64 KiB and the refused bytes are not taken in part."""
    port = Serial()
    port.feed(bytes(INPUT_LIMIT))
    with pytest.raises(ResourceExhausted) as caught:
        port.feed(b"x")
    assert caught.value.reason == "SERIAL_INPUT_FULL"
    assert port.pending_input == INPUT_LIMIT


def test_the_log_forgets_its_beginning() -> None:
    """Offsets count from the power-on; what is not kept any more is passed over."""
    log = SerialLog(kept=4)
    log.append(b"abcdef")
    assert log.piece(0) == (2, b"cdef")
    assert log.piece(5) == (5, b"f")
    assert log.piece(6) == (6, b"")
    with pytest.raises(OutOfRange) as caught:
        log.piece(7)
    assert caught.value.metadata["end_offset"] == "6"


def test_the_log_comes_in_pieces() -> None:
    """A piece has at most 64 KiB."""
    log = SerialLog()
    log.append(bytes(PIECE + 10))
    assert len(log.piece(0)[1]) == PIECE
    assert log.piece(PIECE) == (PIECE, bytes(10))
