/* Says hello from its host, and goes on: a beat every ten seconds, counted in a variable of its own.
 *
 * Every process of this program has `beats` at the same virtual address. Each has it in another frame.
 */
#include "lib/lamina.h"

volatile long beats = 1;

static void stop(int signal) {
    print("stopping\n");
    leave(0);
}

int main(int argc, char **argv) {
    struct utsname host;
    if (syscall3(SYS_uname, (long)&host, 0, 0) < 0) return 1;
    on_signal(SIGTERM, stop);
    print("Hello from ");
    print(host.nodename);
    print(", process ");
    print_number(syscall3(SYS_getpid, 0, 0, 0));
    print("\n");
    for (;;) {
        sleep_seconds(10);
        print("beat ");
        print_number(beats++);
        print("\n");
    }
}
