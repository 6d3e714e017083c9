/* Handles SIGTERM and SIGUSR1 for ever; SIGTERM ends it with code 3, at the second time. */
#include "calls.h"

static volatile long terms = 0, users = 0;

static void on_term(int number) {
    terms++;
    line("term", terms);
    if (terms == 2) call1(SYS_exit_group, 3);
}

static void on_user(int number) {
    users++;
    line("user", users);
}

int main(int argc, char **argv) {
    on_signal(15, on_term, 0);
    on_signal(10, on_user, 0);
    print("ready\n");
    for (;;) call0(SYS_pause);
}
