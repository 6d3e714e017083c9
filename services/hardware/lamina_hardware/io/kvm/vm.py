"""VMs of KVM: one for each second stage, with the vCPUs of its contexts; and what a host's KVM cores share."""

from __future__ import annotations

import fcntl
import os
import threading
from array import array

from lamina_hardware.domain.contexts.exit_controls import KEPT_MSRS
from lamina_hardware.engines.interface import SharedState
from lamina_hardware.io.kvm import abi
from lamina_hardware.io.kvm.slice_timer import Watch
from lamina_hardware.io.kvm.slots import GuestMemory
from lamina_hardware.io.kvm.vcpu import Vcpu
from lamina_kit.bus.memory import MemoryBus
from lamina_kit.bus.run_page import RunPage


class Vm:
    """One VM: the memory of one EPT and the vCPUs behind it."""

    def __init__(self, device: int, bus: MemoryBus, eptp: int, run_bytes: int) -> None:
        self.eptp = eptp
        self.file = fcntl.ioctl(device, abi.CREATE_VM, 0)
        abi.enable_msr_exits(self.file, KEPT_MSRS)
        abi.keep_hypercalls(self.file)
        self.memory = GuestMemory(self.file, bus, eptp)
        self.lock = threading.Lock()
        self._changed = array("Q", [1])
        self.changed_at = self._changed.buffer_info()[0]
        """Where compiled code sees `changed`."""
        self.tables_changed = False
        """Whether a guest's own tables were changed from outside."""
        self.holes: dict[int, tuple[tuple[int, int], ...]] = {}
        self.vcpus: dict[int, Vcpu] = {}
        self._all: list[Vcpu] = []
        self._free: list[Vcpu] = []
        self._run_bytes = run_bytes

    @property
    def changed(self) -> bool:
        """Whether the EPT is to be looked at before the next run."""
        return bool(self._changed[0])

    @changed.setter
    def changed(self, value: bool) -> None:
        self._changed[0] = value

    def vcpu(self, context: int, page: RunPage) -> Vcpu:
        """Returns the vCPU of a context, a new one or one that is free, when it has none that serves."""
        found = self.vcpus.get(context)
        if found is not None:
            return found
        found = next((one for one in self._free if one.takes(page)), None)
        if found is None:
            found = Vcpu(self.file, len(self._all), self._run_bytes)
            self._all.append(found)
        else:
            self._free.remove(found)
        found.complete = False
        self.vcpus[context] = found
        return found

    def release(self, context: int) -> None:
        """Takes a context's vCPU from it; the vCPU serves another."""
        self.holes.pop(context, None)
        if (found := self.vcpus.pop(context, None)) is not None:
            found.disarm()
            self._free.append(found)

    def set_holes(self, context: int, holes: tuple[tuple[int, int], ...]) -> None:
        """Leaves what a context knows as devices, beside what others of the VM do, without memory."""
        if self.holes.get(context, ()) == holes:
            return
        self.holes[context] = holes
        self.memory.set_holes(_merged(hole for one in self.holes.values() for hole in one))

    def close(self) -> None:
        """Closes the VM."""
        for vcpu in self._all:
            vcpu.close()
        os.close(self.file)
        self.memory.close()


def _merged(holes: object) -> tuple[tuple[int, int], ...]:
    """Returns ranges ascending, those that touch as one."""
    found: list[tuple[int, int]] = []
    for gpa, size in sorted(holes):  # type: ignore[call-overload]
        if found and gpa <= found[-1][0] + found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], gpa + size - found[-1][0]))
        else:
            found.append((gpa, size))
    return tuple(found)


class KvmHost(SharedState):
    """What the KVM cores of one host share: the device, the VMs, and the watch that ends slices."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.device = os.open(abi.DEVICE, os.O_RDWR | os.O_CLOEXEC)
        self._run_bytes = fcntl.ioctl(self.device, abi.GET_VCPU_MMAP_SIZE, 0)
        self._vms: dict[int, Vm] = {}
        self._at: dict[int, Vm] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._logging = False
        self._tsc_hz: int | None = None
        self.watch = Watch()
        """What ends slices."""
        self.note = lambda context, what: None

    def close(self) -> None:
        """Closes all VMs; no core runs. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.watch.stop()
        for vm in self._vms.values():
            vm.close()
        self._vms.clear()
        self._at.clear()
        os.close(self.device)

    def vm(self, context: int, eptp: int) -> Vm:
        """Returns the VM of a context's second stage."""
        found = self._at.get(context)
        if found is not None and found.eptp == eptp:
            return found
        with self._lock:
            self._release(context)
            found = self._vms.get(eptp)
            if found is None:
                found = self._vms[eptp] = Vm(self.device, self.bus, eptp, self._run_bytes)
                found.memory.log(self._logging)
            self._at[context] = found
            return found

    def forget(self, context: int) -> None:
        """Forgets a context; a VM without any goes."""
        with self._lock:
            self._release(context)

    def fetch(self, context: int, page: RunPage) -> None:
        """See `SharedState.fetch`."""
        vm = self._at.get(context)
        vcpu = vm.vcpus.get(context) if vm is not None else None
        if vcpu is not None and vcpu.complete:
            vcpu.disarm()
            vcpu.fetch(page)

    def knows(self, eptp: int) -> bool:
        """Whether there is a VM of a second stage."""
        return eptp in self._vms

    def stale(self, *, guest_tables: bool) -> None:
        """Has every VM look at its EPT, and at its guests' tables if those changed, before it runs again."""
        for vm in list(self._vms.values()):
            vm.changed = True
            vm.tables_changed = vm.tables_changed or guest_tables

    def tsc_frequency_hz(self) -> int:
        """See `SharedState.tsc_frequency_hz`; asked of KVM once."""
        if self._tsc_hz is None:
            self._tsc_hz = abi.tsc_frequency_hz(self.device)
        return self._tsc_hz

    def collect_writes(self, *, keep: bool) -> None:
        """See `SharedState.collect_writes`: KVM's log of written pages says it."""
        with self._lock:
            for vm in self._vms.values():
                with vm.lock:
                    if self._logging:
                        vm.memory.harvest()
                    vm.memory.log(keep)
            self._logging = keep

    def _release(self, context: int) -> None:
        vm = self._at.pop(context, None)
        if vm is None:
            return
        with vm.lock:
            vm.release(context)
        if not vm.vcpus and vm not in self._at.values():
            if self._logging:
                vm.memory.harvest()
            del self._vms[vm.eptp]
            vm.close()
