"""The cores, over the hardware layer's `Cpu` contract: run groups, contexts, runs, shootdowns.

Each context has a run stream of its own: one request out, one response back, nothing to tell apart. Closing it stops
the run that is under way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
from lamina.common.v1 import handle_pb2
from lamina.hardware.v1 import hardware_pb2, hardware_pb2_grpc

from lamina_hypervisor.domain.exits.exits import Ran
from lamina_hypervisor.domain.vcpus.processor import MODELLED, Processor
from lamina_hypervisor.domain.vcpus.vcpu import Context
from lamina_hypervisor.engines import effects
from lamina_hypervisor.io.session_calls import SessionCalls
from lamina_kit.bus.run_page import ExitReason
from lamina_kit.errors import AlreadyExists, Unavailable
from lamina_kit.paging import PAGE_SIZE
from lamina_kit.rpc.status import rpc_error

ROOT_GROUP = "hypervisor"
"""The run group under which all VMs' groups hang."""

MAX_RANGES = 4096
"""Ranges of one shootdown; more drop everything of the EPT."""

_REASONS = {int(reason): reason for reason in ExitReason}


@dataclass
class _Line:
    """A context's run stream and the one request object that is sent again and again."""

    call: Any
    request: hardware_pb2.RunRequest


class Cores:
    """Performs the core effects of the engine. Calls name the session, so that the hardware cleans up after us."""

    def __init__(self, channel: grpc.aio.Channel, calls: SessionCalls) -> None:
        self._stub = hardware_pb2_grpc.CpuStub(channel)
        self._hosts = hardware_pb2_grpc.HostsStub(channel)
        self._calls = calls
        self._session = calls.session
        self._lines: dict[tuple[int, int], _Line] = {}
        self._root = ""
        self._groups = 0

    async def open(self) -> None:
        """Makes the run group of this layer, or finds the one of an earlier start."""
        group = hardware_pb2.RunGroup(weight=100)
        request = hardware_pb2.CreateRunGroupRequest(run_group_id=ROOT_GROUP, run_group=group)
        try:
            self._root = (await self._calls.make(self._stub.CreateRunGroup, request, self._unmake_group)).name
        except AlreadyExists:
            listed = await self._call(self._stub.ListRunGroups, hardware_pb2.ListRunGroupsRequest(page_size=1000))
            self._root = next(g.name for g in listed.run_groups if g.name.endswith(f"/runGroups/{ROOT_GROUP}"))

    async def look(self, effect: effects.LookAtProcessor) -> Processor:
        """Returns what the cores do by themselves: by the capabilities that the hardware told when it was joined."""
        if "instruction-exits" in self._session.handshake.capabilities:
            return MODELLED
        host: hardware_pb2.Host = await self._call(self._hosts.GetHost, hardware_pb2.GetHostRequest())
        return Processor(traps=False, tsc_hz=host.tsc_frequency_hz)

    async def create_run_group(self, effect: effects.CreateRunGroup) -> str:
        """Makes a VM's run group; returns its name, which no earlier start used."""
        self._groups += 1
        group_id = f"{effect.vm_id[:36]}-{self._session.epoch}-{self._groups}"
        group = hardware_pb2.RunGroup(parent=self._root, weight=effect.weight)
        request = hardware_pb2.CreateRunGroupRequest(run_group_id=group_id, run_group=group)
        return str((await self._calls.make(self._stub.CreateRunGroup, request, self._unmake_group)).name)

    async def delete_run_group(self, effect: effects.DeleteRunGroup) -> None:
        """Deletes a VM's run group."""
        request = hardware_pb2.DeleteRunGroupRequest(name=effect.name)
        await self._calls.delete(effect.name, self._stub.DeleteRunGroup, request)

    async def create_context(self, effect: effects.CreateContext) -> Context:
        """Makes an execution context that delivers exceptions and SYSCALL inside the guest."""
        context = hardware_pb2.Context(
            run_group=effect.run_group,
            coherence_domain=effect.domain,
            eptp=effect.eptp,
            intercepts=hardware_pb2.Intercepts(exceptions=0, cpuid=effect.traps, syscall=False),
            label=effect.label,
        )
        request = hardware_pb2.CreateContextRequest(context=context)
        made = await self._calls.make(self._stub.CreateContext, request, self._unmake_context)
        return Context(made.handle.id, made.handle.generation, made.run_page)

    async def delete_context(self, effect: effects.DeleteContext) -> None:
        """Deletes a context and closes its run stream."""
        line = self._lines.pop(_key(effect.context), None)
        if line is not None:
            line.call.cancel()
        request = hardware_pb2.DeleteContextRequest(handle=_handle(effect.context))
        await self._calls.delete(f"context {effect.context.id}", self._stub.DeleteContext, request)

    async def run(self, effect: effects.Run) -> Ran:
        """Runs a context until it exits."""
        line = self._lines.get(_key(effect.context)) or self._open_line(effect.context)
        line.request.sequence += 1
        try:
            await line.call.write(line.request)
            response = await line.call.read()
        except asyncio.InvalidStateError:  # so says a stream that had ended before the write
            response = grpc.aio.EOF
        except grpc.aio.AioRpcError as error:
            self._lines.pop(_key(effect.context), None)
            raise rpc_error(error) from error
        if response is grpc.aio.EOF:
            self._lines.pop(_key(effect.context), None)
            raise Unavailable(
                "The hardware layer closed a run stream.",
                reason="RUN_STREAM_CLOSED",
                next_step="Look at the hardware layer's log; start the VM again once it serves.",
            )
        return Ran(
            _REASONS.get(response.reason, ExitReason.NONE),
            response.instructions,
            response.run_time_ns,
            response.wait_time_ns,
            response.core,
            response.detail,
        )

    async def kick(self, effect: effects.Kick) -> None:
        """Makes a running context exit."""
        await self._call(self._stub.KickContext, hardware_pb2.KickContextRequest(handle=_handle(effect.context)))

    async def shootdown(self, effect: effects.Shootdown) -> None:
        """Drops translations of guest pages from all cores."""
        pages = effect.pages if len(effect.pages) <= MAX_RANGES else ()
        ranges = [hardware_pb2.AddressRange(start=page, size_bytes=PAGE_SIZE) for page in pages]
        await self._call(self._stub.Shootdown, hardware_pb2.ShootdownRequest(eptp=effect.eptp, ranges=ranges))

    async def close(self) -> None:
        """Closes what is open and deletes this layer's run group, unless a newer start of this layer has it now."""
        for line in self._lines.values():
            line.call.cancel()
        self._lines.clear()
        if not self._session.stale:
            await self._call(self._stub.DeleteRunGroup, hardware_pb2.DeleteRunGroupRequest(name=self._root))

    def _open_line(self, context: Context) -> _Line:
        call = self._stub.Run(metadata=self._session.metadata)
        line = self._lines[_key(context)] = _Line(call, hardware_pb2.RunRequest(handle=_handle(context)))
        return line

    async def _call(self, method: Any, request: Any) -> Any:
        return await self._calls.call(method, request)

    def _unmake_group(self, made: hardware_pb2.RunGroup) -> Any:
        return self._stub.DeleteRunGroup(hardware_pb2.DeleteRunGroupRequest(name=made.name))

    def _unmake_context(self, made: hardware_pb2.Context) -> Any:
        return self._stub.DeleteContext(hardware_pb2.DeleteContextRequest(handle=made.handle))


def _key(context: Context) -> tuple[int, int]:
    return context.id, context.generation


def _handle(context: Context) -> handle_pb2.Handle:
    return handle_pb2.Handle(id=context.id, generation=context.generation)
