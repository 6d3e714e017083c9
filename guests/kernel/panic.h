/* The end: says why, and stops this vCPU and, with it, the VM. */

#ifndef PANIC_H
#define PANIC_H

void panic(const char *why);

/* Has `last` called when the kernel panics, after the reason was printed: who is there by then stops what it started. */
void at_panic(void (*last)(void));

#endif
