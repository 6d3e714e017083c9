"""A 16550A serial port: eight registers, a receive buffer, a transmitter that is never busy. Pure.

    offset  read (DLAB = 0)              write (DLAB = 0)              DLAB = 1
    0       RBR  received byte           THR  byte to send             DLL  divisor, low
    1       IER  interrupt enable        IER                           DLM  divisor, high
    2       IIR  interrupt identity      FCR  FIFO control
    3       LCR  line control; bit 7 is DLAB
    4       MCR  modem control; bit 4 is loopback
    5       LSR  line status: bit 0 data ready, bits 5 and 6 transmitter empty
    6       MSR  modem status
    7       SCR  scratch

The line has no speed: a byte is sent in the moment it is written. Source: National Semiconductor PC16550D, 1995.
"""

from __future__ import annotations

from collections import deque

from lamina_kit.errors import ResourceExhausted

INPUT_LIMIT = 64 * 1024
"""Bytes of input that the guest may leave unread."""

IER_DATA, IER_THRE = 0x01, 0x02
LCR_DLAB = 0x80
MCR_LOOPBACK = 0x10
LSR_DATA_READY, LSR_IDLE = 0x01, 0x60
IIR_NONE, IIR_THRE, IIR_DATA, IIR_FIFO = 0x01, 0x02, 0x04, 0xC0
MSR_CONNECTED = 0xB0
"""Carrier, data set ready, clear to send."""

_READ_NAMES = ("rbr", "ier", "iir", "lcr", "mcr", "lsr", "msr", "scr")
_WRITE_NAMES = ("thr", "ier", "fcr", "lcr", "mcr", "lsr", "msr", "scr")
_DIVISOR_NAMES = ("dll", "dlm")


class Serial:
    """One port. `sent` counts bytes that left it; `take_output` hands them to whoever keeps the log."""

    def __init__(self) -> None:
        self.sent = 0
        self._output = bytearray()
        self._input: deque[int] = deque()
        self._registers = [0, 0, 0, 0x03, 0x08, 0, 0, 0]
        self._divisor = [0x01, 0x00]
        self._fifo = False
        self._thre_pending = False

    @property
    def interrupt(self) -> bool:
        """Whether the port asks for its interrupt now (a level, not an edge)."""
        return self._identity() != IIR_NONE

    @property
    def pending_input(self) -> int:
        """Bytes that the guest has not read yet."""
        return len(self._input)

    def feed(self, data: bytes) -> int:
        """Appends bytes from outside; returns `pending_input`. Takes all or, `SERIAL_INPUT_FULL`, nothing."""
        if len(self._input) + len(data) > INPUT_LIMIT:
            raise ResourceExhausted(
                f"The guest has {len(self._input)} bytes of serial input unread; {len(data)} more are too many.",
                reason="SERIAL_INPUT_FULL",
                next_step="Wait until the guest reads, then write again.",
            )
        self._input.extend(data)
        return len(self._input)

    def take_output(self) -> bytes:
        """Returns the bytes sent since the last call."""
        if not self._output:
            return b""
        output = bytes(self._output)
        self._output.clear()
        return output

    def register_name(self, offset: int, *, write: bool) -> str:
        """Returns what a register is called now, for example `thr`; DLAB changes the first two."""
        if offset < 2 and self._registers[3] & LCR_DLAB:
            return _DIVISOR_NAMES[offset]
        return (_WRITE_NAMES if write else _READ_NAMES)[offset]

    def read(self, offset: int) -> int:
        """Returns the value of a register, 0 to 255; reading RBR and IIR has the effects that it has in silicon."""
        if offset < 2 and self._registers[3] & LCR_DLAB:
            return self._divisor[offset]
        if offset == 0:
            return self._input.popleft() if self._input else 0
        if offset == 2:
            return self._read_identity()
        if offset == 5:
            return LSR_IDLE | (LSR_DATA_READY if self._input else 0)
        if offset == 6:
            return MSR_CONNECTED
        return self._registers[offset]

    def write(self, offset: int, value: int) -> None:
        """Writes a register; line and modem status cannot be written."""
        if offset < 2 and self._registers[3] & LCR_DLAB:
            self._divisor[offset] = value
        elif offset == 0:
            self._transmit(value)
        elif offset == 1:
            self._enable(value & 0x0F)
        elif offset == 2:
            self._control_fifo(value)
        elif offset not in (5, 6):
            self._registers[offset] = value

    def _transmit(self, value: int) -> None:
        if self._registers[4] & MCR_LOOPBACK:
            if len(self._input) < INPUT_LIMIT:
                self._input.append(value)
        else:
            self._output.append(value)
            self.sent += 1
        self._thre_pending = bool(self._registers[1] & IER_THRE)

    def _enable(self, value: int) -> None:
        turned_on = value & ~self._registers[1]
        self._registers[1] = value
        self._thre_pending = bool(value & IER_THRE) and (self._thre_pending or bool(turned_on & IER_THRE))

    def _control_fifo(self, value: int) -> None:
        self._fifo = bool(value & 0x01)
        if value & 0x02:
            self._input.clear()

    def _identity(self) -> int:
        if self._registers[1] & IER_DATA and self._input:
            return IIR_DATA
        if self._registers[1] & IER_THRE and self._thre_pending:
            return IIR_THRE
        return IIR_NONE

    def _read_identity(self) -> int:
        identity = self._identity()
        if identity == IIR_THRE:
            self._thre_pending = False
        return identity | (IIR_FIFO if self._fifo else 0)
