"""What requests to devices may say: what is within the bounds is taken, a step beyond is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lamina.hardware.v1 import devices_pb2, disks_pb2, iommu_pb2, nics_pb2, wires_pb2
from tests.unit.hardware.requests import check_each, made, wrong

from lamina_hardware.convert import devices, disks, iommu, nics, wires
from lamina_hardware.devices.nic import RECEIVE_QUEUES, TRANSMIT_QUEUES, VECTORS
from lamina_hardware.domain.devices.device import MAX_QUEUES, MAX_VECTORS
from lamina_hardware.domain.disk import disk as limits
from lamina_hardware.domain.disk.groups import DEFAULT_WEIGHT, MOST_WEIGHT
from lamina_hardware.domain.iommu.domains import DomainKind
from lamina_hardware.domain.iommu.second_stage import IOVA_BITS
from lamina_hardware.domain.nic import ring as rings
from lamina_hardware.domain.nic.settings import Settings
from lamina_hardware.domain.wire import Quality
from lamina_hardware.io.media.datagrams import LONGEST_PATH
from lamina_hardware.names import Names

PAGE = 4096
NAMES = Names("h1")


def _doorbell(count: int, **more: int) -> devices_pb2.Doorbell:
    found = devices_pb2.Doorbell()
    for n in range(count):
        found.queues.add(queue=more.get("queue", n), tail=more.get("tail", 0))
    return found


def test_drivers() -> None:
    """Doorbells and masks name queues and vectors that are there, each once; DMA memory comes in pages, to 256 MiB."""
    assert devices.doorbell(_doorbell(2, tail=65_535)) == [(0, 65_535), (1, 65_535)]
    assert wrong(lambda: devices.doorbell(_doorbell(MAX_QUEUES))) == []
    assert wrong(lambda: devices.doorbell(_doorbell(MAX_QUEUES + 1))) == ["doorbell.queues"]
    assert wrong(lambda: devices.doorbell(_doorbell(2, queue=3))) == ["doorbell.queues"]
    assert wrong(lambda: devices.doorbell(_doorbell(1, tail=65_536))) == ["doorbell.queues.tail"]
    check_each(
        devices_pb2.VectorMask,
        lambda message: devices.mask(message, 4),
        [{"masked": [0, 3], "unmasked": [1]}, {"masked": [0] * MAX_VECTORS}],
        [("mask.masked", {"masked": [4]}), ("mask.unmasked", {"unmasked": [-1]}),
         ("mask.unmasked", {"unmasked": [0] * (MAX_VECTORS + 1)})],
    )  # fmt: skip
    check_each(
        lambda **fields: made(devices_pb2.AllocateDmaBufferRequest, {"owner": "o", "size_bytes": PAGE}, fields),
        devices.check_allocation,
        [{}, {"size_bytes": 256 << 20, "owner": "o" * 127}],
        [("size_bytes", {"size_bytes": 0}), ("size_bytes", {"size_bytes": PAGE + 8}),
         ("size_bytes", {"size_bytes": (256 << 20) + PAGE}), ("owner", {"owner": ""}), ("owner", {"owner": "o" * 128})],
    )  # fmt: skip
    assert devices.device_kind(0) is None
    assert wrong(lambda: devices.device_kind(99)) == ["kind"]


KIND = iommu_pb2.DmaDomain


def test_dma_domains() -> None:
    """A table starts on a page; an identity domain has neither a table nor pages to ask for."""
    check_each(
        KIND,
        lambda message: iommu.domain_wish(message, "me"),
        [{}, {"label": "x" * 127, "root_address": PAGE, "page_requests": True}, {"kind": KIND.KIND_IDENTITY}],
        [("dma_domain.label", {"label": "x" * 128}), ("dma_domain.root_address", {"root_address": 8}),
         ("dma_domain.root_address", {"kind": KIND.KIND_IDENTITY, "root_address": PAGE}),
         ("dma_domain.page_requests", {"kind": KIND.KIND_IDENTITY, "page_requests": True}),
         ("dma_domain.kind", {"kind": 99})],
    )  # fmt: skip
    assert iommu.domain_wish(KIND(), "me").kind is DomainKind.MAPPED


def _mapping(**fields: Any) -> list[iommu_pb2.DmaMapping]:
    return [made(iommu_pb2.DmaMapping, {"iova": 0, "address": 0, "size_bytes": PAGE, "read": True}, fields)]


def test_dma_mappings() -> None:
    """Whole pages to 1 TiB within the width of DMA addresses, readable or writable, apart from each other."""
    end = 1 << IOVA_BITS
    check_each(
        _mapping,
        iommu.mappings,
        [{}, {"read": False, "write": True}, {"iova": end - PAGE}, {"size_bytes": 1 << 40}],
        [("mappings.iova", {"iova": 8}), ("mappings.address", {"address": 8}),
         ("mappings.size_bytes", {"size_bytes": PAGE + 8}), ("mappings.size_bytes", {"size_bytes": 0}),
         ("mappings.size_bytes", {"size_bytes": (1 << 40) + PAGE}), ("mappings.iova", {"iova": end}),
         ("mappings.read", {"read": False})],
    )  # fmt: skip
    assert wrong(lambda: iommu.mappings(_mapping(iova=PAGE) + _mapping())) == []
    assert wrong(lambda: iommu.mappings(_mapping(size_bytes=2 * PAGE) + _mapping(iova=PAGE))) == ["mappings"]
    assert wrong(lambda: iommu.mappings([])) == wrong(lambda: iommu.mappings(_mapping() * 4097)) == ["mappings"]


def test_dma_ranges_frames_and_transfers() -> None:
    """Ranges are cut at the end of DMA addresses; lists have 1 to 4096 entries, transfers 1 byte to 1 MiB."""
    end = 1 << IOVA_BITS
    piece = iommu_pb2.DmaRange
    assert iommu.ranges([piece(iova=end - PAGE, size_bytes=1 << 62)]) == [(end - PAGE, end)]
    assert iommu.ranges([piece(iova=2 * end, size_bytes=PAGE)]) == [(end, end)]
    check_each(
        lambda **fields: [made(piece, {"iova": 0, "size_bytes": PAGE}, fields)],
        iommu.ranges,
        [{}],
        [("ranges.iova", {"iova": 1}), ("ranges.size_bytes", {"size_bytes": 1 + PAGE}),
         ("ranges.size_bytes", {"size_bytes": 0}), ("ranges.size_bytes", {"size_bytes": (1 << 62) + PAGE})],
    )  # fmt: skip
    assert wrong(lambda: iommu.ranges([])) == ["ranges"]
    assert iommu.ranges([], at_least=0) == []
    assert wrong(lambda: iommu.ranges([piece(iova=0, size_bytes=PAGE)] * 4097)) == ["ranges"]
    assert iommu.frames([3] * 4096) == [3 * PAGE] * 4096
    assert wrong(lambda: iommu.frames([])) == wrong(lambda: iommu.frames([3] * 4097)) == ["frames"]
    for size, field in ((0, ["size"]), (1, []), (1 << 20, []), ((1 << 20) + 1, ["size"])):
        assert wrong(lambda size=size: iommu.check_transfer(size, "size")) == field  # type: ignore[misc]
    answers = iommu_pb2.PageAnswers(answers=[iommu_pb2.PageAnswers.PageAnswer(sequence=1, present=True)] * 1024)
    assert iommu.answers(answers) == [(1, True)] * 1024
    answers.answers.add()
    assert wrong(lambda: iommu.answers(answers)) == ["answers"]


def test_wires() -> None:
    """Rates, delays, loss and queues have the bounds of the contract; 0 is as fast as it goes, or the default."""
    check_each(
        wires_pb2.Wire,
        wires.quality,
        [{}, {"rate_bits_per_second": 1_000}, {"rate_bits_per_second": 10**12}, {"delay_ns": 10**10},
         {"jitter_ns": 10**10}, {"loss_ppm": 1_000_000}, {"queue_bytes": 1_500}, {"queue_bytes": 1 << 30}],
        [("wire.rate_bits_per_second", {"rate_bits_per_second": 999}),
         ("wire.rate_bits_per_second", {"rate_bits_per_second": 10**12 + 1}),
         ("wire.delay_ns", {"delay_ns": -1}), ("wire.delay_ns", {"delay_ns": 10**10 + 1}),
         ("wire.jitter_ns", {"jitter_ns": 10**10 + 1}), ("wire.loss_ppm", {"loss_ppm": 1_000_001}),
         ("wire.queue_bytes", {"queue_bytes": 1_499}), ("wire.queue_bytes", {"queue_bytes": (1 << 30) + 1})],
    )  # fmt: skip
    assert wires.quality(wires_pb2.Wire(cut=True)) == Quality(is_cut=True)
    old = Quality(rate=5_000, delay_ns=7)
    message = wires_pb2.Wire(delay_ns=9, cut=True)
    assert wires.changed(message, ["delay_ns"], old) == Quality(rate=5_000, delay_ns=9)
    assert wires.changed(message, ["cut"], old) == Quality(rate=5_000, delay_ns=7, is_cut=True)
    for paths in ([], ["name"], ["cut", "medium"]):
        assert wrong(lambda paths=paths: wires.changed(message, paths, old)) == ["update_mask"]  # type: ignore[misc]


UDP, UNIX = wires_pb2.UdpMedium, wires_pb2.UnixMedium


def test_media_of_wires() -> None:
    """Addresses, paths and names of interfaces that a medium can have, and those that it cannot."""
    check_each(
        wires_pb2.Wire,
        wires.medium_of,
        [{}, {"fabric": wires_pb2.FabricMedium(fabric="f")}, {"udp": UDP(remote="127.0.0.1:65535")},
         {"udp": UDP(local="[::1]:0", remote="[::1]:1")}, {"unix": UNIX(local="a", remote="b" * LONGEST_PATH)},
         {"tap": wires_pb2.TapMedium()}, {"tap": wires_pb2.TapMedium(interface="a" * 15)},
         {"packet": wires_pb2.PacketMedium(interface="eth0")}],
        [("wire.fabric.fabric", {"fabric": wires_pb2.FabricMedium(fabric="No!")}),
         *(("wire.udp.remote", {"udp": UDP(remote=text)})
           for text in ("", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:٣", "host:1")),
         ("wire.udp.local", {"udp": UDP(local="x", remote="127.0.0.1:1")}),
         ("wire.udp.local", {"udp": UDP(local="[::1]:1", remote="127.0.0.1:1")}),
         ("wire.udp.local", {"udp": UDP(local="127.0.0.1:1", remote="[::1]:1")}),
         ("wire.unix.local", {"unix": UNIX(local="", remote="b")}),
         ("wire.unix.remote", {"unix": UNIX(local="a", remote="b" * (LONGEST_PATH + 1))}),
         ("wire.unix.remote", {"unix": UNIX(local="a", remote="b\0")}),
         ("wire.packet.interface", {"packet": wires_pb2.PacketMedium()}),
         *(("wire.tap.interface", {"tap": wires_pb2.TapMedium(interface=name)})
           for name in ("a" * 16, "a/b", "a:b", "a b", ".", "..", "é", "\x07"))],
    )  # fmt: skip


def _nic(*paths: str) -> Callable[[nics_pb2.Nic], Settings]:
    return lambda message: nics.changed(message, paths, Settings(bytes(6)))


def _spreading(**fields: Any) -> nics_pb2.Nic:
    wanted: dict[str, Any] = {"enabled": True, "key": bytes(40), "table": [0] * 128} | fields
    return nics_pb2.Nic(receive_side_scaling=nics_pb2.ReceiveSideScaling(**wanted))


def test_settings_of_nics() -> None:
    """Addresses, MTU, VLANs and spreading within their bounds; a mask names what may be changed."""
    check_each(
        nics_pb2.Nic,
        _nic("mac_address"),
        [{"mac_address": "02:00:00:00:00:fF"}],
        [("nic.mac_address", {"mac_address": text})
         for text in ("", "02:00:00:00:00", "02:00:00:00:00:0g", "02:00:00:00:00:000", "01:00:00:00:00:01",
                      "02-00-00-00-00-01")],
    )  # fmt: skip
    check_each(
        nics_pb2.Nic,
        _nic("mtu_bytes"),
        [{"mtu_bytes": 68}, {"mtu_bytes": 9000}],
        [("nic.mtu_bytes", {"mtu_bytes": 67}), ("nic.mtu_bytes", {"mtu_bytes": 9001})],
    )
    check_each(
        nics_pb2.Nic,
        _nic("vlan_filter"),
        [{"vlan_filter": [1, 4094]}, {"vlan_filter": [1] * 4094}, {}],
        [("nic.vlan_filter", {"vlan_filter": given}) for given in ([0], [4095], [1] * 4095)],
    )
    check_each(
        nics_pb2.Nic,
        _nic("receive_addresses"),
        [{"receive_addresses": ["01:00:5e:00:00:01"] * 128}],
        [("nic.receive_addresses", {"receive_addresses": given}) for given in (["x"], ["02:00:00:00:00:01"] * 129)],
    )
    check_each(
        _spreading,
        _nic("receive_side_scaling"),
        [{}, {"table": [RECEIVE_QUEUES - 1] * 128}, {"enabled": False, "key": b"", "table": []}],
        [("nic.receive_side_scaling.key", {"key": bytes(39)}), ("nic.receive_side_scaling.table", {"table": [0] * 127}),
         ("nic.receive_side_scaling.table", {"table": [RECEIVE_QUEUES] * 128}),
         ("nic.receive_side_scaling.table", {"table": [-1] * 128})],
    )  # fmt: skip
    for paths in ((), ("name",)):
        assert wrong(lambda paths=paths: _nic(*paths)(nics_pb2.Nic())) == ["update_mask"]  # type: ignore[misc]
    message = nics_pb2.Nic(mtu_bytes=1400, promiscuous=True, admin_up=False, mac_address="x", vlan_filter=[0])
    changed = _nic("mtu_bytes", "admin_up")(message)
    assert changed == replace(Settings(bytes(6)), mtu=1400, admin_up=False, spreading=changed.spreading)


def _queue(**fields: int) -> list[nics_pb2.Queue]:
    return [made(nics_pb2.Queue, {"number": 0, "ring_iova": 0, "descriptors": 8, "buffer_bytes": 1024}, fields)]


def test_queues_of_nics() -> None:
    """Rings, buffers, vectors and moderation within the datasheet's bounds, each queue once."""
    most = RECEIVE_QUEUES + TRANSMIT_QUEUES
    check_each(
        _queue,
        nics.queues,
        [{}, {"number": most - 2}, {"number": 1, "buffer_bytes": 0}, {"descriptors": rings.MOST_DESCRIPTORS},
         {"ring_iova": (1 << 57) - rings.RING_ALIGNMENT}, {"buffer_bytes": rings.MOST_BUFFER},
         {"descriptors": rings.LEAST_DESCRIPTORS, "buffer_bytes": rings.LEAST_BUFFER}, {"vector": VECTORS - 1},
         {"moderation_ns": rings.MOST_MODERATION_NS, "moderation_frames": rings.MOST_MODERATION_FRAMES}],
        [("queues.number", {"number": most}), ("queues.number", {"number": -1, "buffer_bytes": 0}),
         ("queues.ring_iova", {"ring_iova": 8}), ("queues.ring_iova", {"ring_iova": 1 << 57}),
         ("queues.descriptors", {"descriptors": rings.LEAST_DESCRIPTORS - rings.DESCRIPTOR_STEP}),
         ("queues.descriptors", {"descriptors": rings.MOST_DESCRIPTORS + rings.DESCRIPTOR_STEP}),
         ("queues.descriptors", {"descriptors": rings.LEAST_DESCRIPTORS + 1}),
         ("queues.buffer_bytes", {"buffer_bytes": rings.LEAST_BUFFER - rings.BUFFER_STEP}),
         ("queues.buffer_bytes", {"buffer_bytes": rings.MOST_BUFFER + rings.BUFFER_STEP}),
         ("queues.buffer_bytes", {"buffer_bytes": rings.LEAST_BUFFER + 1}), ("queues.buffer_bytes", {"number": 1}),
         ("queues.vector", {"vector": VECTORS}), ("queues.vector", {"vector": -1}),
         ("queues.moderation_ns", {"moderation_ns": rings.MOST_MODERATION_NS + 1}),
         ("queues.moderation_frames", {"moderation_frames": rings.MOST_MODERATION_FRAMES + 1})],
    )  # fmt: skip
    whole = [queue for n in range(most) for queue in _queue(number=n, buffer_bytes=0 if n % 2 else 1024)]
    assert len(nics.queues(whole)) == most
    assert wrong(lambda: nics.queues(_queue() * 2)) == ["queues.number"]
    assert "queues" in wrong(lambda: nics.queues([*whole, *_queue()]))


def test_disks() -> None:
    """Sizes in sectors, and speeds, within the bounds of the contract."""
    check_each(
        lambda **fields: made(disks_pb2.Disk, {"size_bytes": 1 << 20}, fields),
        disks.wish,
        [{}, {"sector_bytes": 512, "size_bytes": limits.LEAST_BYTES}, {"size_bytes": limits.MOST_BYTES},
         {"latency_ns": limits.MOST_LATENCY_NS}, {"rate_bytes_per_second": limits.LEAST_RATE},
         {"rate_bytes_per_second": limits.MOST_RATE}, {"queue_depth": limits.MOST_DEPTH}],
        [("disk.sector_bytes", {"sector_bytes": 1024}), ("disk.size_bytes", {"size_bytes": (1 << 20) + 512}),
         ("disk.size_bytes", {"size_bytes": limits.LEAST_BYTES - 4096}),
         ("disk.size_bytes", {"size_bytes": limits.MOST_BYTES + 4096}), ("disk.latency_ns", {"latency_ns": -1}),
         ("disk.latency_ns", {"latency_ns": limits.MOST_LATENCY_NS + 1}),
         ("disk.rate_bytes_per_second", {"rate_bytes_per_second": limits.LEAST_RATE - 1}),
         ("disk.rate_bytes_per_second", {"rate_bytes_per_second": limits.MOST_RATE + 1}),
         ("disk.queue_depth", {"queue_depth": limits.MOST_DEPTH + 1}), ("disk.queue_depth", {"queue_depth": -1})],
    )  # fmt: skip
    wish = disks.wish(disks_pb2.Disk(size_bytes=1 << 20))
    assert (wish.sector, wish.latency_ns, wish.depth) == (4096, None, 32)


def test_io_groups() -> None:
    """Weights to the most, at most 64 limits, each disk once, none below 0."""
    limit = disks_pb2.IoGroup.IoLimit
    names = [f"hosts/h1/disks/d{n}" for n in range(65)]
    check_each(
        disks_pb2.IoGroup,
        lambda message: disks.group_wish(message, NAMES),
        [{}, {"weight": MOST_WEIGHT}, {"limits": [limit(disk=name) for name in names[:64]]},
         {"limits": [limit(reads_per_second=(1 << 63) - 1)]}],
        [("io_group.weight", {"weight": -1}), ("io_group.weight", {"weight": MOST_WEIGHT + 1}),
         ("io_group.limits", {"limits": [limit(disk=name) for name in names]}),
         ("io_group.limits.disk", {"limits": [limit(disk=names[0])] * 2}),
         *((f"io_group.limits.{field}", {"limits": [made(limit, {}, {field: -1})]})
           for field in ("read_bytes_per_second", "write_bytes_per_second", "reads_per_second", "writes_per_second"))],
    )  # fmt: skip
    message = disks_pb2.IoGroup(weight=7, limits=[limit(reads_per_second=1)])
    assert disks.group_changes(message, ["weight"], NAMES) == (7, None)
    weight, limits = disks.group_changes(message, ["limits"], NAMES)
    assert weight is None and limits is not None and [one.reads for one in limits] == [1]
    assert disks.group_changes(disks_pb2.IoGroup(), ["weight"], NAMES) == (DEFAULT_WEIGHT, None)
    for paths in ([], ["usage"]):
        assert wrong(lambda paths=paths: disks.group_changes(message, paths, NAMES)) == ["update_mask"]  # type: ignore[misc]


OP = disks_pb2.TransferRequest
READ, WRITE, FLUSH = OP.OPERATION_READ, OP.OPERATION_WRITE, OP.OPERATION_FLUSH
DISCARD, ZEROES = OP.OPERATION_DISCARD, OP.OPERATION_WRITE_ZEROES
METERED = disks_pb2.Metered()


def _inline(size: int) -> Any:
    return disks_pb2.InlineData(data=bytes(size))


def _memory(*sizes: int) -> Any:
    found = disks_pb2.ScatterList()
    for size in sizes:
        found.pieces.add(size_bytes=size)
    return found


def test_transfers() -> None:
    """Whole sectors to 16 MiB, 1 MiB inline; a flush moves nothing, discards have no place, pieces are all bytes."""
    mib = 1 << 20
    check_each(
        lambda **fields: made(OP, {"operation": READ, "size_bytes": 4096, "metered": METERED}, fields),
        lambda request: disks.check_transfer(request, {7}, 4096),
        [{}, {"size_bytes": 16 * mib}, {"size_bytes": mib, "inline": _inline(0)},
         {"operation": WRITE, "size_bytes": mib, "inline": _inline(mib)}, {"operation": FLUSH, "size_bytes": 0},
         {"operation": DISCARD}, {"operation": ZEROES, "size_bytes": 16 * mib},
         {"memory": _memory(1, 4095)}, {"size_bytes": mib, "memory": _memory(*[256] * 4096)},
         {"offset": (1 << 63) - 16 * mib - 4096}],
        [("sequence", {"sequence": 7}), ("operation", {"operation": 0}), ("operation", {"operation": 99}),
         ("offset", {"offset": -4096}), ("offset", {"offset": 512}), ("offset", {"offset": (1 << 63) - 4096}),
         ("size_bytes", {"size_bytes": 0}), ("size_bytes", {"size_bytes": 512}),
         ("size_bytes", {"size_bytes": 16 * mib + 4096}), ("size_bytes", {"operation": FLUSH}),
         ("place", {"operation": FLUSH, "size_bytes": 0, "inline": _inline(0)}),
         ("place", {"operation": DISCARD, "inline": _inline(0)}),
         ("place", {"operation": ZEROES, "memory": _memory(4096)}),
         ("size_bytes", {"size_bytes": mib + 4096, "inline": _inline(0)}),
         ("inline.data", {"inline": _inline(4096)}), ("inline.data", {"operation": WRITE, "inline": _inline(4095)}),
         ("memory.pieces", {"memory": _memory(4095)}), ("memory.pieces", {"memory": _memory()}),
         ("memory.pieces", {"size_bytes": mib, "memory": _memory(*[256] * 4095, 128, 128)}),
         ("memory.pieces.size_bytes", {"memory": _memory(4096, 0)})],
    )  # fmt: skip
    assert wrong(lambda: disks.check_transfer(OP(operation=READ, size_bytes=4096), ())) == ["place"]
    assert wrong(lambda: disks.check_transfer(OP(operation=FLUSH), ())) == []
