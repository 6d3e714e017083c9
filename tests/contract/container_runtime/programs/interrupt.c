/* A read that waits is interrupted by an alarm: without SA_RESTART it fails with EINTR, with it it goes on. */
#include "calls.h"

static int pipes[2];

static void wake(int number) { print("alarm\n"); }
static void feed(int number) { print("feed\n"); call3(SYS_write, pipes[1], (long)"x", 1); }

int main(int argc, char **argv) {
    char byte;
    double kept = 1.5;
    call1(SYS_pipe, (long)pipes);
    on_signal(14, wake, 0);
    call1(SYS_alarm, 1);
    line("plain", call3(SYS_read, pipes[0], (long)&byte, 1));
    on_signal(14, feed, 0x10000000);
    call1(SYS_alarm, 1);
    line("restarted", call3(SYS_read, pipes[0], (long)&byte, 1));
    return kept == 1.5 ? 0 : 1;
}
