/* Passes bad pointers to system calls and prints what they answer. */
#include "calls.h"

int main(int argc, char **argv) {
    long bad[] = { 0, 8, 0x7fffffffffff, (long)0x800000000000, -4096 };
    int pipes[2];
    call1(SYS_pipe, (long)pipes);
    for (int i = 0; i < 5; i++) {
        line("write", call3(SYS_write, 1, bad[i], 4));
        line("read", call3(SYS_read, 0, bad[i], 0));
        line("uname", call1(SYS_uname, bad[i]));
        line("pipe", call1(SYS_pipe, bad[i]));
        line("execve", call3(SYS_execve, bad[i], 0, 0));
        line("nanosleep", call2(SYS_nanosleep, bad[i], 0));
        line("sigaction", call4(SYS_sigaction, 10, bad[i] ? bad[i] : 8, 0, 8));
    }
    line("text", call3(SYS_write, pipes[1], (long)main, 4));
    line("into text", call3(SYS_read, pipes[0], (long)main, 4));
    return 0;
}
