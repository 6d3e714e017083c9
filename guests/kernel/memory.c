/* What the compiler itself calls for large initializers and copies. */

#include "boot.h"

void *memset(void *to, int value, u64 count)
{
    u8 *at = to;
    while (count--)
        *at++ = value;
    return to;
}

void *memcpy(void *to, const void *from, u64 count)
{
    u8 *at = to;
    const u8 *source = from;
    while (count--)
        *at++ = *source++;
    return to;
}

void *memmove(void *to, const void *from, u64 count)
{
    u8 *at = to;
    const u8 *source = from;
    if (at <= source)
        return memcpy(to, from, count);
    while (count--)
        at[count] = source[count];
    return to;
}
