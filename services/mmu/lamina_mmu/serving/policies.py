"""Serves `lamina.mmu.v1.Policies`: replacement policies, plugging in, candidates and evictions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from lamina.mmu.v1 import policies_pb2 as pb
from lamina.mmu.v1 import policies_pb2_grpc as rpc

from lamina_mmu.convert import mmu, policies
from lamina_mmu.domain.names import SPACE
from lamina_mmu.host import MmuHost
from lamina_mmu.streams.plugged_policy import PlugStream

Context = grpc.aio.ServicerContext[Any, Any]


class PoliciesServicer(rpc.PoliciesServicer):
    """The replacement policies of one host."""

    def __init__(self, host: MmuHost) -> None:
        self.host = host

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        """Lists policies."""
        found = self.host.engine.policies()
        return pb.ListPoliciesResponse(policies=[policies.policy(view, self.host.names) for view in found])

    async def Plug(
        self, request_iterator: AsyncIterator[pb.PlugRequest], context: Context
    ) -> AsyncIterator[pb.PlugResponse]:
        """Serves one plugged policy."""
        stream = PlugStream(self.host, request_iterator, self.host.session(context))
        async for response in stream.responses():
            yield response

    async def ListCandidates(self, request: pb.ListCandidatesRequest, context: Context) -> pb.ListCandidatesResponse:
        """Lists the pages of a group, the first to go first."""
        after, size = mmu.page(request)
        group = mmu.group_part(request.group, self.host.name, "group")
        policy, found = self.host.engine.candidates(group, after, size + 1)
        token = str(after + size) if len(found) > size else ""
        shown = [policies.candidate(one, self.host.names) for one in found[:size]]
        return pb.ListCandidatesResponse(candidates=shown, next_page_token=token, policy=policy)

    async def ListEvictions(self, request: pb.ListEvictionsRequest, context: Context) -> pb.ListEvictionsResponse:
        """Lists evictions, newest first."""
        before, size = mmu.page(request)
        group = mmu.group_part(request.group, self.host.name, "group")
        space = mmu.name_part(request.space, self.host.name, SPACE, "space") if request.space else ""
        found = self.host.engine.evictions(group, space, before, size + 1)
        token = str(found[size - 1].sequence) if len(found) > size else ""
        shown = [policies.eviction(one, self.host.names) for one in found[:size]]
        return pb.ListEvictionsResponse(evictions=shown, next_page_token=token)
