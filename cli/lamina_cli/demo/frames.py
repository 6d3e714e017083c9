"""Chapter 7: two ports exchange Ethernet frames through the switch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from lamina_cli.client.client import Client
from lamina_cli.demo.host import SWITCH
from lamina_cli.demo.story import Story
from lamina_cli.output.enum_words import last, word

if TYPE_CHECKING:
    from lamina.vswitch.v1 import vswitch_pb2

ALICE = bytes.fromhex("020000000a11")
BOB = bytes.fromhex("020000000b0b")
BROADCAST = b"\xff" * 6
ETHERTYPE_EXPERIMENTAL = b"\x88\xb5"
"""Local experimental EtherType 1. Source: IEEE 802, 9.2.4."""

PATIENCE_SECONDS = 10.0


def frame(destination: bytes, source: bytes, text: str) -> bytes:
    """Returns an Ethernet frame with a text in it, padded to the 60 bytes that a wire carries at least."""
    return (destination + source + ETHERTYPE_EXPERIMENTAL + text.encode()).ljust(60, b"\0")


class Plug:
    """One end of an attach stream: sends frames into a port and receives what the switch sends out of it."""

    def __init__(self, stub: Any, handle: Any) -> None:
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue()
        self._handle = handle
        self._stream = stub.Attach(self._requests())
        self._answers = aiter(self._stream)

    async def _requests(self) -> AsyncIterator[Any]:
        from lamina.vswitch.v1 import vswitch_pb2 as pb

        yield pb.AttachRequest(open=pb.AttachOpen(handle=self._handle))
        while (item := await self._outgoing.get()) is not None:
            yield item

    async def opened(self) -> None:
        """Waits until the switch has confirmed the attachment."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (await anext(self._answers)).HasField("opened"):
                pass

    def send(self, *frames: bytes) -> None:
        """Sends frames as one batch."""
        from lamina.vswitch.v1 import vswitch_pb2 as pb

        self._outgoing.put_nowait(pb.AttachRequest(frames=pb.FrameBatch(frames=frames)))

    async def receive(self) -> list[bytes]:
        """Returns the next batch of frames that comes out of the port."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = await anext(self._answers)
                if answer.HasField("frames"):
                    return list(answer.frames.frames)

    def close(self) -> None:
        """Pulls the plug."""
        self._outgoing.put_nowait(None)
        self._stream.cancel()


async def exchange(story: Story, client: Client) -> None:
    """Lets two ports talk, and shows what the switch learned."""
    from lamina.vswitch.v1 import vswitch_pb2 as pb
    from lamina.vswitch.v1 import vswitch_pb2_grpc as services

    story.chapter("Two ports exchange Ethernet frames through the switch")
    switches = client.stub("vswitch", services.SwitchesStub)
    stub = client.stub("vswitch", services.PortsStub)
    parent = next(
        item.name
        for item in (await switches.ListSwitches(pb.ListSwitchesRequest())).switches
        if last(item.name) == SWITCH
    )
    ports = [
        await stub.CreatePort(pb.CreatePortRequest(parent=parent, port_id=name)) for name in ("alice", "bob", "carol")
    ]
    alice, bob, carol = plugs = [Plug(stub, port.handle) for port in ports]
    for plug in plugs:
        await plug.opened()
    hello, reply = frame(BROADCAST, ALICE, "who is there?"), frame(ALICE, BOB, "bob is")
    alice.send(hello)
    heard = [await bob.receive(), await carol.receive()]
    story.equal("a broadcast comes out of every other port, byte for byte", heard, [[hello], [hello]])
    bob.send(reply)
    story.equal("the answer comes out of alice's port, byte for byte", await alice.receive(), [reply])
    macs = (await switches.ListMacEntries(pb.ListMacEntriesRequest(parent=parent))).mac_entries
    show_macs(story, macs)
    learned = sorted((item.mac_address, last(item.port)) for item in macs)
    story.equal(
        "the switch learned both addresses on their ports",
        learned,
        [(ALICE.hex(":"), "alice"), (BOB.hex(":"), "bob")],
    )
    counted = await stub.GetPortCounters(pb.GetPortCountersRequest(port=ports[2].name))
    story.equal("carol got the broadcast only: the answer was not flooded", counted.sent_frames, 1)
    for plug in plugs:
        plug.close()


def show_macs(story: Story, macs: Iterable[vswitch_pb2.MacEntry]) -> None:
    """Prints the MAC table."""
    from lamina.vswitch.v1 import vswitch_pb2 as pb

    story.table(
        ("MAC", "VLAN", "PORT", "TYPE"),
        ((item.mac_address, item.vlan_id or "-", last(item.port), word(pb.MacEntry.Type, item.type)) for item in macs),
    )
