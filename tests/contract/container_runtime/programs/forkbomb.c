/* Forks until it is refused, says how often it could and with which error, and waits for its children. */
#include "calls.h"

int main(int argc, char **argv) {
    long made = 0, child;
    while ((child = call0(SYS_fork)) > 0) made++;
    if (child == 0) {
        call0(SYS_pause);
        return 0;
    }
    line("children", made);
    line("error", child);
    return 7;
}
