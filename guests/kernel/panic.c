/* A panic is printed first, so that the reason is seen whatever fails on the way down. */

#include "panic.h"
#include "cpu.h"
#include "serial.h"

static void (*last_call)(void);

void at_panic(void (*last)(void)) { last_call = last; }

void panic(const char *why)
{
    print("\npanic: ");
    print(why);
    print("\n");
    if (last_call)
        last_call();
    stop_vcpu();
}
