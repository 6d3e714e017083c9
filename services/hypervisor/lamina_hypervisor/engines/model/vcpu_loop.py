"""The life of a vCPU: deliver what is pending, run, handle the exit, and again. Pure.

        ┌────────────── paused: stand until resumed
        ▼
──▶ deliver ──▶ Run ──▶ exit ──▶ dispatcher ──┬─▶ again
        ▲                                     ├─▶ wait for memory ──▶ again
        └──────────── woken ◀── halted ◀──────┴─▶ off, or the machine ends
"""

from __future__ import annotations

from lamina_hypervisor.domain.boot import protocol
from lamina_hypervisor.domain.exits import exits
from lamina_hypervisor.domain.exits.exits import Ran
from lamina_hypervisor.domain.exits.time_slices import SliceEnd
from lamina_hypervisor.domain.memory.addresses import Gpa
from lamina_hypervisor.domain.vcpus.vcpu import Vcpu, VcpuState
from lamina_hypervisor.domain.vm import Verdict
from lamina_hypervisor.engines import effects
from lamina_hypervisor.engines.interface import serial_key, standing_key
from lamina_hypervisor.engines.model.dispatch import Dispatcher, Next
from lamina_hypervisor.engines.model.machine import ModelMachine
from lamina_hypervisor.engines.model.memory import fault_in
from lamina_kit.bus.run_page import EVENT_EXTERNAL, EVENT_VALID, ExitReason
from lamina_kit.clock import Clock
from lamina_kit.effects import Step, WaitFor
from lamina_kit.errors import LaminaError, ResourceExhausted

SERIAL_EVENT = protocol.SERIAL_VECTOR | EVENT_EXTERNAL | EVENT_VALID
"""The serial port's interrupt, as a run page has it until the core delivers it."""


class VcpuLoop:
    """Runs vCPUs of any machine of one engine."""

    def __init__(self, clock: Clock, dispatcher: Dispatcher) -> None:
        self._clock = clock
        self._dispatcher = dispatcher

    def run(self, machine: ModelMachine, vcpu: Vcpu) -> Step[None]:
        """Runs a vCPU until it is off or the machine ends. A layer below that fails ends the machine."""
        try:
            while machine.verdict is None and vcpu.state is not VcpuState.OFF:
                if machine.paused:
                    yield from self._stand(machine, vcpu)
                elif vcpu.state is VcpuState.HALTED:
                    yield from self._sleep(machine, vcpu)
                else:
                    yield from self._turns(machine, vcpu)
        except LaminaError as error:
            reason = "OUT_OF_MEMORY" if isinstance(error, ResourceExhausted) else "HOST_UNAVAILABLE"
            machine.end(Verdict(reason, f"vCPU {vcpu.number}: {error}", crashed=True))
        finally:
            vcpu.running = False

    def _turns(self, machine: ModelMachine, vcpu: Vcpu) -> Step[None]:
        """Runs and handles exits, until one asks for more than to go on, or the machine is to stand or ends."""
        run, first = effects.Run(vcpu.context), vcpu.number == 0
        following = Next.RESUME
        while following is Next.RESUME and machine.verdict is None and not machine.paused:
            if first and (vcpu.offered or machine.serial.interrupt):
                self._offer(machine, vcpu)
            vcpu.running = True
            ran: Ran = yield run
            vcpu.running = False
            if vcpu.offered and not vcpu.page.event & EVENT_VALID:
                vcpu.offered = False
                vcpu.interrupts += 1
            left = self._clock.now_ns()
            self._account(vcpu, ran, left)
            following, qualifier = self._dispatcher.handle(machine, vcpu, ran.reason, ran.detail, left)
            if following is not Next.RESUME:
                yield from self._follow(machine, vcpu, following)
            machine.ledger.record(vcpu.number, ran.reason, qualifier, self._clock.now_ns() - left)
            machine.ledger.instructions += ran.instructions

    def _account(self, vcpu: Vcpu, ran: Ran, now_ns: int) -> None:
        vcpu.exits += 1
        vcpu.instructions += ran.instructions
        vcpu.times.run += ran.run_ns
        vcpu.times.steal += ran.wait_ns
        if ran.reason is not ExitReason.REFUSED:
            vcpu.last_core = ran.core
            vcpu.timer.ran(now_ns, ran.core, ran.run_ns, ran.wait_ns, ran.instructions)

    def _follow(self, machine: ModelMachine, vcpu: Vcpu, following: Next) -> Step[None]:
        """Does what an exit asks for beyond going on."""
        if following is Next.MEMORY:
            words = vcpu.page.words
            yield from self._memory(machine, vcpu, Gpa(words[exits.GPA]), words[exits.ACCESS])
        elif following is Next.OUTPUT:
            yield effects.Wake(serial_key(machine.name))
        elif following is Next.EXPIRED:
            vcpu.timer.close(SliceEnd.EXPIRED)
        elif following is Next.YIELD:
            vcpu.timer.close(SliceEnd.YIELDED)
        elif following in (Next.STOPPED, Next.END):
            vcpu.timer.close(SliceEnd.STOPPED)
        elif following is Next.HALT:
            vcpu.stand(VcpuState.HALTED, SliceEnd.HALTED)
        elif following is Next.OFF:
            self._off(machine, vcpu)
        elif following is Next.WAKE:
            target = machine.vcpus[vcpu.page.rbx]
            target.woken = True
            yield effects.Wake(machine.vcpu_key(target.number))

    def _off(self, machine: ModelMachine, vcpu: Vcpu) -> None:
        vcpu.stand(VcpuState.OFF, SliceEnd.HALTED)
        if all(other.state is VcpuState.OFF for other in machine.vcpus):
            machine.end(Verdict("HALTED", "Every vCPU executed HLT with interrupts disabled."))

    def _memory(self, machine: ModelMachine, vcpu: Vcpu, gpa: Gpa, access: int) -> Step[None]:
        began = self._clock.now_ns()
        if (yield from fault_in(machine, vcpu, gpa, access)):
            vcpu.times.memory_wait += self._clock.now_ns() - began

    def _stand(self, machine: ModelMachine, vcpu: Vcpu) -> Step[None]:
        """Stands while the machine is paused."""
        before = vcpu.state
        vcpu.stand(VcpuState.PAUSED, SliceEnd.STOPPED)
        machine.standing += 1
        yield effects.Wake(standing_key(machine.name))
        while machine.paused and machine.verdict is None:
            yield WaitFor(machine.vcpu_key(vcpu.number))
        machine.standing -= 1
        vcpu.state = before

    def _sleep(self, machine: ModelMachine, vcpu: Vcpu) -> Step[None]:
        """Waits, halted, for an interrupt or a wake-up."""
        began = self._clock.now_ns()
        while machine.verdict is None and not machine.paused:
            if vcpu.woken or (vcpu.number == 0 and machine.serial.interrupt):
                vcpu.woken = False
                vcpu.state = VcpuState.RUNNABLE
                break
            yield WaitFor(machine.vcpu_key(vcpu.number))
        vcpu.times.halt += self._clock.now_ns() - began

    @staticmethod
    def _offer(machine: ModelMachine, vcpu: Vcpu) -> None:
        """Gives the core the serial interrupt while the port asks for one, and takes it back when it no longer does.

        The core delivers it as soon as the guest takes interrupts; until then it stands in the run page. The port's
        wish changes only by an exit or by input, which kicks, so the page is right whenever the vCPU runs.
        """
        page, wanted = vcpu.page, machine.serial.interrupt
        if wanted and not page.event & EVENT_VALID:
            page.event = SERIAL_EVENT
            vcpu.offered = True
        elif vcpu.offered and not wanted and page.event == SERIAL_EVENT:
            page.event = 0
            vcpu.offered = False
