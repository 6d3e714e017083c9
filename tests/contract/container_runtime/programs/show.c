/* show FILE: writes a file to standard output; exits with the error number when it cannot be opened. */
#include "calls.h"

int main(int argc, char **argv) {
    static char buffer[4096];
    long file = call3(2, (long)argv[1], 0, 0), count;
    if (file < 0) return (int)-file;
    while ((count = call3(SYS_read, file, (long)buffer, sizeof buffer)) > 0) call3(SYS_write, 1, (long)buffer, count);
    return 0;
}
