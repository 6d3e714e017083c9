"""The kernel's KVM interface as numbers and layouts: ioctls, capabilities, exits, places in `struct kvm_run`.

Every ioctl on this machine costs one system call; what can go through `kvm_run` (KVM_CAP_SYNC_REGS) does.

Source: Linux, Documentation/virt/kvm/api.rst, include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

DEVICE = "/dev/kvm"
API_VERSION = 12


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | 0xAE << 8 | number


GET_API_VERSION = _ioc(0, 0x00, 0)
CREATE_VM = _ioc(0, 0x01, 0)
CHECK_EXTENSION = _ioc(0, 0x03, 0)
GET_VCPU_MMAP_SIZE = _ioc(0, 0x04, 0)
GET_SUPPORTED_CPUID = _ioc(3, 0x05, 8)
CREATE_VCPU = _ioc(0, 0x41, 0)
GET_DIRTY_LOG = _ioc(1, 0x42, 16)
SET_USER_MEMORY_REGION = _ioc(1, 0x46, 32)
RUN = _ioc(0, 0x80, 0)
SET_SREGS = _ioc(1, 0x84, 312)
GET_MSRS = _ioc(3, 0x88, 8)
SET_MSRS = _ioc(1, 0x89, 8)
SET_SIGNAL_MASK = _ioc(1, 0x8B, 4)
SET_CPUID2 = _ioc(1, 0x90, 8)
SET_DEBUGREGS = _ioc(1, 0xA2, 128)
GET_DEBUGREGS = _ioc(2, 0xA1, 128)
ENABLE_CAP = _ioc(1, 0xA3, 104)
GET_TSC_KHZ = _ioc(0, 0xA3, 0)
GET_XSAVE = _ioc(2, 0xA4, 4096)
SET_XSAVE = _ioc(1, 0xA5, 4096)
X86_SET_MSR_FILTER = _ioc(1, 0xC6, 392)

CAPABILITIES = {
    3: "KVM_CAP_USER_MEMORY",
    41: "KVM_CAP_VCPU_EVENTS",
    50: "KVM_CAP_DEBUGREGS",
    55: "KVM_CAP_XSAVE",
    74: "KVM_CAP_SYNC_REGS",
    136: "KVM_CAP_IMMEDIATE_EXIT",
    188: "KVM_CAP_X86_USER_SPACE_MSR",
    189: "KVM_CAP_X86_MSR_FILTER",
}
"""What the cores need, by number."""

CAP_USER_SPACE_MSR = 188
MSR_EXIT_REASONS = 0b111  # invalid, unknown, filtered
CAP_DISABLE_QUIRKS = 213
QUIRK_FIX_HYPERCALL = 1 << 5

SYNC_REGS, SYNC_SREGS, SYNC_EVENTS = 1, 2, 4
SYNC_ALL = 7

# Exit reasons.
EXIT_IO, EXIT_DEBUG, EXIT_HLT, EXIT_MMIO, EXIT_IRQ_WINDOW, EXIT_SHUTDOWN, EXIT_FAIL_ENTRY, EXIT_INTR = (
    2, 4, 5, 6, 7, 8, 9, 10,
)  # fmt: skip
EXIT_INTERNAL_ERROR, EXIT_RDMSR, EXIT_WRMSR, EXIT_MEMORY_FAULT = 17, 29, 30, 39

# Places in kvm_run.
MOST_ACCESSES = 8  # of one instruction: a read and a write of 16 bytes have four
RUN_WINDOW, RUN_IMMEDIATE = 0, 1
RUN_REASON, RUN_CR8, RUN_BODY = 8, 16, 32
RUN_VALID, RUN_DIRTY, RUN_REGS = 288, 296, 304
RUN_SREGS = RUN_REGS + 144
RUN_EVENTS = RUN_SREGS + 312
SREGS_BYTES, EVENTS_BYTES = 312, 64

IO_BODY = struct.Struct("<BBHIQ")  # direction, size, port, count, place of the data
MMIO_BODY = struct.Struct("<Q8sIB")  # address, data, length, whether it writes
MSR_BODY = struct.Struct("<B7xIIQ")  # error, reason, number, value
INTERNAL_BODY = struct.Struct("<II16Q")  # suberror, words, words
MEMORY_BODY = struct.Struct("<QQQ")  # flags, address, bytes
REGION = struct.Struct("<IIQQQ")  # slot, flags, guest physical address, bytes, user address
REGION_LOG = 1
REGS = struct.Struct("<18Q")

_FILTER_MOST = 16


def check_extension(device: int, number: int) -> int:
    """Returns what KVM says of a capability; 0 when it does not have it."""
    return fcntl.ioctl(device, CHECK_EXTENSION, number)


def missing(path: str = DEVICE) -> list[str]:
    """Returns why KVM cannot be used here, one sentence a reason."""
    try:
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return [f"{path} is not there: the kernel has no KVM, or this machine no virtualization."]
    except PermissionError:
        return [f"{path} may not be opened by this user; the group kvm may."]
    except OSError as error:
        return [f"{path} cannot be opened: {error.strerror}."]
    try:
        version = fcntl.ioctl(device, GET_API_VERSION, 0)
        if version != API_VERSION:
            return [f"{path} speaks version {version} of KVM's interface; {API_VERSION} is wanted."]
        lacking = [name for number, name in CAPABILITIES.items() if not check_extension(device, number)]
        return [f"KVM does not have {name} here." for name in lacking]
    except OSError as error:
        return [f"{path} does not answer as KVM does: {error.strerror}."]
    finally:
        os.close(device)


def set_region(vm: int, slot: int, gpa: int, size: int, address: int, flags: int = 0) -> None:
    """Makes a memory slot, changes its flags, or removes it (size 0)."""
    fcntl.ioctl(vm, SET_USER_MEMORY_REGION, REGION.pack(slot, flags, gpa, size, address))


def tsc_frequency_hz(device: int) -> int:
    """Returns what the time stamp counter of a vCPU counts a second; 0 when KVM does not know."""
    vm = fcntl.ioctl(device, CREATE_VM, 0)
    try:
        vcpu = fcntl.ioctl(vm, CREATE_VCPU, 0)
        try:
            return fcntl.ioctl(vcpu, GET_TSC_KHZ, 0) * 1000
        except OSError:  # so says KVM of a counter that is not steady
            return 0
        finally:
            os.close(vcpu)
    finally:
        os.close(vm)


def keep_hypercalls(vm: int) -> None:
    """Has KVM leave VMCALL and VMMCALL in a guest's code as they are: one that is not the processor's is #UD.

    Otherwise KVM writes the other into the code, and tries for ever where it may not write.
    """
    known = check_extension(vm, CAP_DISABLE_QUIRKS)
    if known & QUIRK_FIX_HYPERCALL:
        capability = bytearray(104)
        struct.pack_into("<IIQ", capability, 0, CAP_DISABLE_QUIRKS, 0, QUIRK_FIX_HYPERCALL)
        fcntl.ioctl(vm, ENABLE_CAP, bytes(capability))


def enable_msr_exits(vm: int, kept: tuple[int, ...]) -> None:
    """Has every access to a model-specific register that is not in `kept` exit to user space."""
    capability = bytearray(104)
    struct.pack_into("<IIQ", capability, 0, CAP_USER_SPACE_MSR, 0, MSR_EXIT_REASONS)
    fcntl.ioctl(vm, ENABLE_CAP, bytes(capability))
    bits, ranges = (ctypes.c_uint8 * 1)(0xFF), bytearray(24 * _FILTER_MOST)
    runs: list[list[int]] = []
    for number in sorted(kept):
        if runs and number == runs[-1][0] + runs[-1][1] and runs[-1][1] < 8:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    for n, (first, count) in enumerate(runs):  # struct kvm_msr_filter_range: reads and writes, count, base, bitmap
        struct.pack_into("<IIIxxxxQ", ranges, 24 * n, 3, count, first, ctypes.addressof(bits))
    fcntl.ioctl(vm, X86_SET_MSR_FILTER, struct.pack("<Ixxxx", 1) + bytes(ranges))
