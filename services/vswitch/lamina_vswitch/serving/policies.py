"""`lamina.vswitch.v1.Policies`: what switches, port groups and ports allow, shape and watch for."""

from __future__ import annotations

from typing import Any

from grpc import aio
from lamina.vswitch.v1 import policies_pb2 as pb
from lamina.vswitch.v1 import policies_pb2_grpc as rpc

from lamina_vswitch.convert import policies as convert
from lamina_vswitch.domain.definitions.switches import (
    PORT_GROUP_POLICY_NAME,
    PORT_POLICY_NAME,
    SETTINGS_NAME,
    PortDefinition,
    PortGroupDefinition,
    SwitchDefinition,
)
from lamina_vswitch.serving.views import Views
from lamina_vswitch.switches.policies import PolicyBook

Context = aio.ServicerContext[Any, Any]


class PoliciesServicer(rpc.PoliciesServicer):
    """Serves `lamina.vswitch.v1.Policies`."""

    def __init__(self, views: Views, policies: PolicyBook) -> None:
        self._v = views
        self._policies = policies

    async def UpdateSwitchSettings(
        self, request: pb.UpdateSwitchSettingsRequest, context: Context
    ) -> pb.SwitchSettings:
        """Change the settings of a switch."""
        old = self._v.catalog.switch(self._v.names.settings(request.settings.name, "settings.name"))
        wanted, loop = convert.changed_settings(request, old, self._policies.loop_detection(old.switch))
        self._policies.update_switch(wanted, loop, self._v.now_ns())
        return self._settings(wanted)

    async def GetSwitchSettings(self, request: pb.GetSwitchSettingsRequest, context: Context) -> pb.SwitchSettings:
        """Return the settings of a switch."""
        return self._settings(self._v.catalog.switch(self._v.names.settings(request.name)))

    async def GetPortGroupPolicy(self, request: pb.GetPortGroupPolicyRequest, context: Context) -> pb.PortGroupPolicy:
        """Return the policy of a port group."""
        return self._group(self._v.catalog.port_group(*self._v.names.port_group_policy(request.name)))

    async def UpdatePortGroupPolicy(
        self, request: pb.UpdatePortGroupPolicyRequest, context: Context
    ) -> pb.PortGroupPolicy:
        """Change the policy of a port group."""
        group = self._v.catalog.port_group(*self._v.names.port_group_policy(request.policy.name, "policy.name"))
        wanted = convert.changed_group(request, self._policies.group(group.switch, group.port_group))
        self._policies.update_group(group, wanted, self._v.now_ns())
        return self._group(group)

    async def GetPortPolicy(self, request: pb.GetPortPolicyRequest, context: Context) -> pb.PortPolicy:
        """Return the policy of a port."""
        return self._port(self._v.catalog.port(*self._v.names.port_policy(request.name)))

    async def UpdatePortPolicy(self, request: pb.UpdatePortPolicyRequest, context: Context) -> pb.PortPolicy:
        """Change a port's own policy."""
        port = self._v.catalog.port(*self._v.names.port_policy(request.policy.name, "policy.name"))
        wanted = convert.changed_port(request, self._policies.port(port.switch, port.port))
        self._policies.update_port(port, wanted, self._v.now_ns())
        return self._port(port)

    async def ReopenPort(self, request: pb.ReopenPortRequest, context: Context) -> pb.ReopenPortResponse:
        """Open a shut port again."""
        shut = self._policies.reopen(self._v.catalog.port(*self._v.names.port(request.port, "port")))
        return pb.ReopenPortResponse(previous_reason=convert.shut_reason(shut))

    def _settings(self, switch: SwitchDefinition) -> pb.SwitchSettings:
        name = SETTINGS_NAME.format(host=self._v.catalog.host, switch=switch.switch)
        return convert.settings(name, switch, self._policies.loop_detection(switch.switch))

    def _group(self, group: PortGroupDefinition) -> pb.PortGroupPolicy:
        name = self._group_name(group.switch, group.port_group)
        return convert.group_policy(name, self._policies.group(group.switch, group.port_group))

    def _port(self, port: PortDefinition) -> pb.PortPolicy:
        name = PORT_POLICY_NAME.format(host=self._v.catalog.host, switch=port.switch, port=port.port)
        group_name = self._group_name(port.switch, port.port_group) if port.port_group else ""
        own, shut = self._policies.port(port.switch, port.port), self._policies.shut(port)
        return convert.port_policy(name, own, self._policies.in_force(port), group_name, shut)

    def _group_name(self, switch: str, port_group: str) -> str:
        return PORT_GROUP_POLICY_NAME.format(host=self._v.catalog.host, switch=switch, port_group=port_group)
