"""A service with a switch that has uplinks, devices at its ports, and wires that a test plugs into the uplinks."""

from __future__ import annotations

from typing import Any

from lamina.vswitch.v1 import policies_pb2, policies_pb2_grpc
from lamina.vswitch.v1 import uplinks_pb2 as pb
from lamina.vswitch.v1 import uplinks_pb2_grpc as rpc
from lamina.vswitch.v1 import vswitch_pb2 as vs

SWITCH = "hosts/h1/switches/s1"
BROADCAST = b"\xff" * 6


def mac(number: int) -> bytes:
    """Return the address of a station."""
    return b"\x02\0\0\0\0" + bytes((number,))


def frame(dst: bytes, src: bytes, text: str = "", vlan: int = 0) -> bytes:
    """Return a frame of the least length, tagged when it has a VLAN."""
    tag = b"\x81\0" + vlan.to_bytes(2, "big") if vlan else b""
    return dst + src + tag + (b"\x88\xb5" + text.encode()).ljust(48, b"\0")


class UplinkBench:
    """Stubs, and what is plugged in, by the last part of a port's name."""

    def __init__(self, running: Any, device: Any, switch: str = "s1") -> None:
        self.running = running
        self.switch = f"hosts/h1/switches/{switch}"
        self.uplinks = rpc.UplinksStub(running.channel)
        self.devices: dict[str, Any] = {}
        self.device = device

    async def open(self) -> UplinkBench:
        """Make the switch."""
        await self.running.switches.CreateSwitch(vs.CreateSwitchRequest(switch_id=self.switch.rpartition("/")[2]))
        return self

    async def group(self, name: str, vlan: int = 0, trunk: pb.VlanTrunk | None = None) -> str:
        """Make a port group."""
        request = vs.CreatePortGroupRequest(
            parent=self.switch, port_group_id=name, port_group=vs.PortGroup(vlan_id=vlan)
        )
        made: vs.PortGroup = await self.running.switches.CreatePortGroup(request)
        if trunk is not None:
            policy = policies_pb2.PortGroupPolicy(name=f"{made.name}/policy", trunk=trunk)
            stub = policies_pb2_grpc.PoliciesStub(self.running.channel)
            await stub.UpdatePortGroupPolicy(policies_pb2.UpdatePortGroupPolicyRequest(policy=policy))
        return made.name

    async def guest(self, name: str, group: str = "") -> Any:
        """Make a port and plug a device in."""
        request = vs.CreatePortRequest(parent=self.switch, port_id=name, port=vs.Port(port_group=group))
        await self.running.ports.CreatePort(request)
        return await self.plug(name)

    async def create(self, name: str, request_id: str = "", **fields: Any) -> pb.Uplink:
        """Create an uplink."""
        wanted = pb.Uplink(**{"backend_port": True, **fields})
        request = pb.CreateUplinkRequest(parent=self.switch, uplink_id=name, uplink=wanted, request_id=request_id)
        made: pb.Uplink = await self.uplinks.CreateUplink(request)
        return made

    async def uplink(self, name: str, **fields: Any) -> Any:
        """Create an uplink and plug a wire into its port."""
        await self.create(name, **fields)
        return await self.plug(name)

    async def plug(self, name: str) -> Any:
        """Attach a device to a port."""
        port = await self.running.ports.GetPort(vs.GetPortRequest(name=f"{self.switch}/ports/{name}"))
        self.devices[name] = await self.device(self.running.ports, port.handle, completions=True).plug_in()
        return self.devices[name]

    async def send(self, name: str, *frames: bytes) -> None:
        """Send a batch and wait until it is switched; what comes meanwhile is nothing to this test."""
        sender = self.devices[name]
        sender.send(frames)
        while not (await sender.next()).completion.frames:
            pass

    async def state(self, name: str) -> str:
        """Return the state of an uplink."""
        found = await self.uplinks.GetUplink(pb.GetUplinkRequest(name=f"{self.switch}/uplinks/{name}"))
        return pb.Uplink.State.Name(found.state).removeprefix("STATE_")

    async def set_link(self, name: str, up: bool) -> pb.Uplink:
        """Switch the link of an uplink."""
        wanted = pb.Uplink(name=f"{self.switch}/uplinks/{name}", link=vs.LINK_UP if up else vs.LINK_DOWN)
        made: pb.Uplink = await self.uplinks.UpdateUplink(pb.UpdateUplinkRequest(uplink=wanted))
        return made

    async def team(self, group: str, **fields: Any) -> pb.TeamingPolicy:
        """Change the teaming of a group; uplinks are given by their last parts."""
        for field in ("active_uplinks", "standby_uplinks"):
            if field in fields:
                fields[field] = [f"{self.switch}/uplinks/{name}" for name in fields[field]]
        wanted = pb.TeamingPolicy(name=f"{group}/teamingPolicy", **fields)
        request = pb.UpdateTeamingPolicyRequest(teaming_policy=wanted)
        made: pb.TeamingPolicy = await self.uplinks.UpdateTeamingPolicy(request)
        return made

    async def used(self, group: str) -> list[str]:
        """Return the last parts of the uplinks that a group uses."""
        found = await self.uplinks.GetTeamingPolicy(pb.GetTeamingPolicyRequest(name=f"{group}/teamingPolicy"))
        return [name.rpartition("/")[2] for name in found.used_uplinks]

    async def counters(self, name: str) -> tuple[int, int, dict[str, int]]:
        """Return frames received and sent at a port, and its drops by reason."""
        request = vs.GetPortCountersRequest(port=f"{self.switch}/ports/{name}")
        found = await self.running.ports.GetPortCounters(request)
        drops = {vs.DropReason.Name(each.reason).removeprefix("DROP_REASON_"): each.frames for each in found.drops}
        return found.received_frames, found.sent_frames, drops
