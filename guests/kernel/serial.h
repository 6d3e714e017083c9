/* The console: a 16550A serial port, one OUT a byte. */

#ifndef SERIAL_H
#define SERIAL_H

#include "boot.h"

void serial_open(u16 port);
void serial_interrupt(void);

/* Returns the next byte that came in, or -1 when there is none. */
int serial_read(void);

/* Sleeps until a byte has come in, and returns it. */
int serial_wait(void);

void print(const char *text);
void print_bytes(const char *text, u64 count);
void print_hex(u64 value);
void print_number(u64 value);
void print_line(const char *name, u64 value, const char *unit);

#endif
