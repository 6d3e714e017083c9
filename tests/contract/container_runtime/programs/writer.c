/* writer N: N lines, each one write, then half a line to each stream, and waits for a signal. */
#include "calls.h"

int main(int argc, char **argv) {
    long count = number_of(argv[1]);
    for (long i = 1; i <= count; i++) line("line", i);
    call3(SYS_write, 2, (long)"to stderr", 9);
    call3(SYS_write, 1, (long)"no newline", 10);
    if (argc > 2) call0(SYS_pause);
    return 0;
}
