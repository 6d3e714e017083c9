/* Makes a system call that no kernel has, twice. */
#include "calls.h"

int main(int argc, char **argv) {
    line("unknown", call0(9999));
    line("unknown", call0(9999));
    return 0;
}
