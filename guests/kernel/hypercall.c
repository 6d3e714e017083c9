/* How this hypervisor is called: found out once, the same on every vCPU. */

#include "hypercall.h"

u32 call_port;
