/* The other vCPUs: they sleep until the first one gives them work. */

#ifndef VCPUS_H
#define VCPUS_H

#include "boot.h"

/* Lets the others go on from where they wait at the start, and returns when all `count` vCPUs are ready. */
void vcpus_open(int count);

/* Runs `rounds` rounds of a computation on every vCPU at once; prints each one's result. */
void vcpus_compute(u64 rounds);

/* Stops the others for good. */
void vcpus_stop(void);

#endif
