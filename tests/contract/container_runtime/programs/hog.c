/* hog [KIB]: writes to page after page, KIB of them or for ever, and says how far it came. */
#include "calls.h"

int main(int argc, char **argv) {
    long kib = argc > 1 ? number_of(argv[1]) : -1;
    long done = 0;
    while (kib < 0 || done < kib) {
        char *page = (char *)call1(SYS_brk, 0);
        if (call1(SYS_brk, (long)page + 65536) != (long)page + 65536) return 9;
        for (long at = 0; at < 65536; at += 4096) page[at] = 1;
        done += 64;
    }
    line("wrote KiB", done);
    return 0;
}
