/* Computes for ever without a system call. */
#include "calls.h"

int main(int argc, char **argv) {
    volatile unsigned long turns = 0;
    print("spinning\n");
    for (;;) turns++;
}
