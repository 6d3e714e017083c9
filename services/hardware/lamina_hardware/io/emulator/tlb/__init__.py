"""The emulator's TLB: how it is filled, viewed, and used for accesses to guest memory."""
