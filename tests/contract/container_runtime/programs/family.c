/* Processes: what a fork shares and what not, exit statuses, orphans, vfork, a pipe without readers. */
#include "calls.h"

static volatile long value = 1;

int main(int argc, char **argv) {
    int status = 0, pipes[2];
    line("parent", call0(SYS_getpid));
    long child = call0(SYS_fork);
    if (child == 0) {
        value = 2;
        call1(SYS_exit_group, 42);
    }
    line("waited", call4(SYS_wait4, child, (long)&status, 0, 0) == child);
    line("status", status);
    line("value", value);
    child = call0(SYS_vfork);
    if (child == 0) {
        value = 3;
        call1(SYS_exit_group, 0);
    }
    line("after vfork", value);
    call4(SYS_wait4, child, (long)&status, 0, 0);
    line("no child", call4(SYS_wait4, -1, 0, 0, 0));
    call1(SYS_pipe, (long)pipes);
    call1(SYS_close, pipes[0]);
    child = call0(SYS_fork);
    if (child == 0) {
        call3(SYS_write, pipes[1], (long)"x", 1);
        call1(SYS_exit_group, 0);
    }
    call4(SYS_wait4, child, (long)&status, 0, 0);
    line("sigpipe", status);
    line("refused as process 1", call2(SYS_kill, 1, 9));
    child = call0(SYS_fork);
    if (child == 0) {
        if (call0(SYS_fork) == 0) {
            while (call0(SYS_getppid) != 1) sleep_seconds(0);
            call1(SYS_exit_group, 5);
        }
        call1(SYS_exit_group, 0);
    }
    call4(SYS_wait4, child, 0, 0, 0);
    call4(SYS_wait4, -1, (long)&status, 0, 0);
    line("orphan", status);
    return 0;
}
