/* counter [N [CODE]]: counts to N (default 3), a line each, and exits with CODE (default 0). */
#include "lib/lamina.h"

int main(int argc, char **argv) {
    long last = argc > 1 ? number_of(argv[1]) : 3;
    for (long number = 1; number <= last; number++) {
        print_number(number);
        print("\n");
    }
    return argc > 2 ? (int)number_of(argv[2]) : 0;
}
