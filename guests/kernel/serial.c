/* The serial driver. Output is polled; input raises an interrupt, whose handler empties the port into a ring. */

#include "serial.h"
#include "cpu.h"

enum { DATA = 0, INTERRUPTS = 1, FIFO = 2, LINE = 3, MODEM = 4, STATUS = 5 };
enum { DATA_READY = 0x01, CAN_SEND = 0x20 };

#define RING 1024

static u16 base;
static volatile u8 ring[RING];
static volatile u32 head, tail; /* the handler moves head, the reader tail */

void serial_open(u16 port)
{
    base = port;
    out8(base + INTERRUPTS, 0);
    out8(base + LINE, 0x80); /* the divisor's bytes are visible */
    out8(base + DATA, 1);
    out8(base + INTERRUPTS, 0);
    out8(base + LINE, 0x03); /* eight bits, no parity, one stop bit */
    out8(base + FIFO, 0x07);
    out8(base + MODEM, 0x0b);
    out8(base + INTERRUPTS, 0x01); /* an interrupt when a byte has come in */
}

void serial_interrupt(void)
{
    while (in8(base + STATUS) & DATA_READY) {
        u8 byte = in8(base + DATA);
        if (head - tail < RING)
            ring[head++ % RING] = byte;
    }
}

int serial_read(void)
{
    return head == tail ? -1 : ring[tail++ % RING];
}

int serial_wait(void)
{
    int byte;
    interrupts_off();
    while ((byte = serial_read()) < 0) {
        wait_for_interrupt();
        interrupts_off();
    }
    interrupts_on();
    return byte;
}

static void put(u8 byte)
{
    while (!(in8(base + STATUS) & CAN_SEND))
        ;
    out8(base + DATA, byte);
}

void print_bytes(const char *text, u64 count)
{
    while (count--) {
        if (*text == '\n')
            put('\r');
        put(*text++);
    }
}

void print(const char *text)
{
    u64 count = 0;
    while (text[count])
        count++;
    print_bytes(text, count);
}

void print_hex(u64 value)
{
    char digits[18];
    int at = 18;
    do {
        digits[--at] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value);
    digits[--at] = 'x';
    digits[--at] = '0';
    print_bytes(digits + at, 18 - at);
}

void print_number(u64 value)
{
    char digits[20];
    int at = 20;
    do {
        digits[--at] = '0' + value % 10;
        value /= 10;
    } while (value);
    print_bytes(digits + at, 20 - at);
}

void print_line(const char *name, u64 value, const char *unit)
{
    print(name);
    print_number(value);
    print(unit);
    print("\n");
}
