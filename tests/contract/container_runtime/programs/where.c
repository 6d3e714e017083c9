/* Changes a global variable at a fixed address, says where it is, and sleeps. */
#include "calls.h"

volatile long mark = 0x1234;

int main(int argc, char **argv) {
    mark = number_of(argv[1]);
    line("mark", (long)&mark);
    for (;;) sleep_seconds(1000);
}
