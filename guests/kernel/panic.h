/* The end: says why, and stops this vCPU and, with it, the VM. */

#ifndef PANIC_H
#define PANIC_H

void panic(const char *why);

#endif
