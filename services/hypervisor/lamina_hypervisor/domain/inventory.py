"""The VMs of a host by name: create, find, list, delete. Pure.

Slots are reused, generations are not, so a handle names one VM for ever.
"""

from __future__ import annotations

from dataclasses import replace

from lamina_hypervisor.domain.vm import WITHOUT_POWER, Definition, Vm
from lamina_kit.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from lamina_kit.names import Pattern

VM_NAME = Pattern("hosts/{host}/vms/{vm}")
VCPU_NAME = Pattern("hosts/{host}/vms/{vm}/vcpus/{vcpu}")
MAX_VMS = 1024
DEFAULT_PAGE, MAX_PAGE = 100, 1000


class Inventory:
    """All VMs of one host."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._vms: dict[str, Vm] = {}
        self._generations: dict[int, int] = {}

    def adopt(self, vm: Vm) -> None:
        """Takes a VM that was recorded earlier."""
        self._vms[vm.name] = vm
        self._generations[vm.slot] = max(vm.generation, self._generations.get(vm.slot, 0))

    def remember(self, slot: int, generation: int) -> None:
        """Notes that a slot was used up to a generation, by VMs that are gone."""
        self._generations[slot] = max(generation, self._generations.get(slot, 0))

    def create(self, definition: Definition, request_id: str, wall_ns: int) -> tuple[Vm, bool]:
        """Returns (VM, whether it is new). Repeating a `request_id` returns what it made.

        `AlreadyExists` `VM_EXISTS` for a name in use, `InvalidArgument` `REQUEST_ID_REUSED` for a request id that made
        something else, `ResourceExhausted` `TOO_MANY_VMS` at 1024.
        """
        made = self._made_by(request_id)
        if made is not None:
            if made.definition != definition:
                raise InvalidArgument(
                    f"The request id {request_id!r} made {made.name} with another definition.",
                    reason="REQUEST_ID_REUSED",
                    next_step="Use a new request id for a new VM.",
                )
            return made, False
        name = VM_NAME.format(host=self._host, vm=definition.vm_id)
        if name in self._vms:
            raise AlreadyExists(
                f"{name} exists.", reason="VM_EXISTS", next_step="Choose another id, or delete that VM first."
            )
        if len(self._vms) >= MAX_VMS:
            raise ResourceExhausted(
                f"This host has {MAX_VMS} VMs.", reason="TOO_MANY_VMS", next_step="Delete one that is not needed."
            )
        vm = self._new(name, definition, request_id, wall_ns)
        self._vms[name] = vm
        return vm, True

    def get(self, name: str) -> Vm:
        """Returns a VM by its name; `NotFound` `VM_UNKNOWN`, `InvalidArgument` `NAME_MALFORMED`."""
        VM_NAME.parse(name)
        vm = self._vms.get(name)
        if vm is None:
            raise NotFound(
                f"There is no {name}.", reason="VM_UNKNOWN", next_step="List the VMs with ListVirtualMachines."
            )
        return vm

    def delete(self, vm: Vm) -> None:
        """Forgets a VM without power; `FailedPrecondition` `VM_STATE` otherwise."""
        vm.need(*WITHOUT_POWER)
        del self._vms[vm.name]

    def all(self) -> list[Vm]:
        """Returns all VMs by name."""
        return [self._vms[name] for name in sorted(self._vms)]

    def page(self, size: int, token: str) -> tuple[list[Vm], str]:
        """Returns (VMs by name, token of the next page). A token is the name of the last VM shown.

        `InvalidArgument` `PAGE_TOKEN_INVALID` for a token that is no name of a VM of this host.
        """
        if token and not (VM_NAME.matches(token) and VM_NAME.parse(token)["host"] == self._host):
            raise unknown_token(token)
        rest = [vm for vm in self.all() if vm.name > token]
        shown = rest[: min(size or DEFAULT_PAGE, MAX_PAGE)]
        return shown, shown[-1].name if len(shown) < len(rest) else ""

    def _made_by(self, request_id: str) -> Vm | None:
        if not request_id:
            return None
        return next((vm for vm in self.all() if vm.request_id == request_id), None)

    def _new(self, name: str, definition: Definition, request_id: str, wall_ns: int) -> Vm:
        taken = {vm.slot for vm in self._vms.values()}
        slot = next(number for number in range(1, MAX_VMS + 1) if number not in taken)
        generation = self._generations.get(slot, 0) + 1
        self._generations[slot] = generation
        return Vm(name, slot, generation, replace(definition), wall_ns, request_id)


def unknown_token(token: str) -> InvalidArgument:
    """Returns the error for a page token that this service did not issue."""
    return InvalidArgument(
        f"The page token {token[:80]!r} is not one of this service.",
        reason="PAGE_TOKEN_INVALID",
        next_step="Start again without a token.",
    )
