"""Between the contract and the domain, both ways. Requests are bounded here, before anything else looks at them."""

from __future__ import annotations

from typing import Any

from lamina.common.v1 import access_pb2, handle_pb2
from lamina.mmu.v1 import mmu_pb2 as pb

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE, TABLE_NAMES, bit_names, page_up
from lamina_kit.rpc.inproc.call import MAX_ANSWER
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.names import GROUP, Names
from lamina_mmu.domain.outcome import FaultResult
from lamina_mmu.domain.spaces.map_spec import MapSpec
from lamina_mmu.domain.spaces.space import Kind
from lamina_mmu.domain.tables.entry import EXECUTE, READ, WRITE
from lamina_mmu.domain.views import FrameView, GroupView, MappingView, MemoryView, ObjectView, SpaceView, Translation
from lamina_mmu.engines.interface import Key

MAX_BYTES = 4 << 20
MAX_PIECE = 1 << 20
MAX_SPACE = 1 << 47
MAX_OBJECT = 1 << 40
MAX_LIMIT = 1 << 50
MAX_PAGES = 1 << 20
MAX_FRAMES = 65_536
MAX_REQUEST_ID = 127
DEFAULT_PAGE, MAX_PAGE = 100, 1000

_ACCESSES = {access_pb2.ACCESS_READ: READ, access_pb2.ACCESS_WRITE: WRITE, access_pb2.ACCESS_EXECUTE: EXECUTE}


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def handle(message: handle_pb2.Handle) -> Handle:
    """Returns a handle; one that is left out is stale."""
    return Handle(message.id, message.generation)


def key(request: Any, host: str, pattern: Any) -> Key:
    """Returns the handle of a request, or else the last part of its name."""
    if request.HasField("handle"):
        return handle(request.handle)
    return name_part(request.name, host, pattern)


def name_part(name: str, host: str, pattern: Any, field: str = "name") -> str:
    """Returns the last part of a resource name of this host."""
    ids = pattern.parse(name, field)
    with Checks() as check:
        check.that(ids["host"] == host, field, f"is of host {ids['host']}; this is {host}")
    part: str = ids[pattern.variables[-1]]
    return part


def group_part(name: str, host: str, field: str) -> str:
    """Returns the last part of a group's name; empty, the root, when none is given."""
    return name_part(name, host, GROUP, field) if name else ""


def kind(value: int) -> Kind:
    """Returns the kind of a space; unspecified means a process."""
    with Checks() as check:
        check.range("space.kind", value, 0, 2)
    return Kind(value or Kind.PROCESS)


def access(value: int) -> int:
    """Returns an access, which must be given."""
    found = _ACCESSES.get(value)  # type: ignore[call-overload]
    if found is None:
        with Checks() as check:
            check.that(False, "access", "is not one of READ, WRITE, EXECUTE")
    return int(found)


def rights(message: pb.Protection) -> int:
    """Returns rights as bits."""
    return message.read * READ | message.write * WRITE | message.execute * EXECUTE


def label(text: str, request_id: str, limit: int, field: str) -> None:
    """Bounds a label and a request id."""
    with Checks() as check:
        check.that(len(text) <= limit, field, f"has {len(text)} characters, more than {limit}")
        check.max_bytes("request_id", request_id, MAX_REQUEST_ID)


def map_spec(request: pb.MapRangeRequest) -> MapSpec:
    """Returns what to map."""
    mapped = handle(request.object) if request.HasField("object") else None
    with Checks() as check:
        check.range("size_bytes", request.size_bytes, 1, MAX_SPACE)
        check.aligned("address", request.address, PAGE_SIZE)
        check.aligned("object_offset", request.object_offset, PAGE_SIZE)
        check.range("object_offset", request.object_offset, 0, MAX_OBJECT)
        check.that(not request.replace or request.fixed, "replace", "is only for a fixed address")
        check.that(
            not (request.grows_down and (mapped or request.shared)),
            "grows_down",
            "is only for private anonymous memory",
        )
        check.that(len(request.label) <= 255, "label", f"has {len(request.label)} characters, more than 255")
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID)
    return MapSpec(
        address=request.address,
        size=page_up(request.size_bytes),
        rights=rights(request.protection),
        fixed=request.fixed,
        replace=request.replace,
        object=mapped,
        offset=request.object_offset,
        shared=request.shared,
        grows_down=request.grows_down,
        label=request.label,
    )


def page_range(address: int, size: int) -> tuple[int, int]:
    """Returns (start, end) of a page-aligned range within the address space."""
    with Checks() as check:
        check.aligned("address", address, PAGE_SIZE)
        check.range("size_bytes", size, 1, MAX_SPACE)
        check.range("address", address, 0, MAX_SPACE - 1)
    return address, min(page_up(address + size), MAX_SPACE)


def bytes_read(address: int, size: int) -> None:
    """Bounds a read of a space."""
    _byte_range(address, size, "size_bytes", MAX_ANSWER)


def bytes_written(address: int, size: int) -> None:
    """Bounds a write of a space."""
    _byte_range(address, size, "data", MAX_BYTES)


def _byte_range(address: int, size: int, field: str, most: int) -> None:
    with Checks() as check:
        check.range(field, size, 1, most)
        check.range("address", address, 0, (1 << 64) - 1 - MAX_BYTES)


def count(value: int, field: str, high: int) -> int:
    """Returns a count from 1 to `high`."""
    with Checks() as check:
        check.range(field, value, 1, high)
    return value


def allocation(request: pb.AllocateFramesRequest) -> None:
    """Bounds an allocation of frames."""
    with Checks() as check:
        check.range("count", request.count, 1, MAX_FRAMES)
        check.that(0 < len(request.owner) <= 127, "owner", "is not 1 to 127 characters")
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID)


def piece(request: pb.WriteObjectRequest) -> None:
    """Bounds a piece of an object's content."""
    with Checks() as check:
        check.max_bytes("data", request.data, MAX_PIECE)
        check.range("offset", request.offset, 0, MAX_OBJECT)


def limits(message: Any, zero_is_none: bool) -> dict[str, int | None]:
    """Returns the limits that a message gives; RAM 0 and swap -1 mean none. Absent ones are left out of an update.

    Only an update says -1: a group that is made without a limit on swap leaves it out.
    """
    found: dict[str, int | None] = {}
    with Checks() as check:
        check.range("max_bytes", message.max_bytes, 0, MAX_LIMIT)
        check.range("swap_max_bytes", message.swap_max_bytes, 0 if zero_is_none else -1, MAX_LIMIT)
    if zero_is_none or message.HasField("max_bytes"):
        found["max_bytes"] = message.max_bytes or None
    if message.HasField("swap_max_bytes"):
        found["swap_max_bytes"] = None if message.swap_max_bytes < 0 else message.swap_max_bytes
    return found


def group_id(request: pb.CreateGroupRequest) -> str:
    """Returns the last part of a new group's name."""
    with Checks() as check:
        check.identifier("group_id", request.group_id)
        check.max_bytes("request_id", request.request_id, MAX_REQUEST_ID)
    return request.group_id


def page(request: Any, default: int = DEFAULT_PAGE) -> tuple[int, int]:
    """Returns (the number behind which to go on, how many to return)."""
    with Checks() as check:
        check.range("page_size", request.page_size, 0, MAX_PAGE)
    token = request.page_token
    if token and not (token.isascii() and token.isdigit() and len(token) <= 18):
        raise InvalidArgument("page_token was not issued by this service.", reason="PAGE_TOKEN_INVALID")
    return int(token or 0), request.page_size or default


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def handle_message(value: Handle) -> handle_pb2.Handle:
    """Returns a handle as a message."""
    return handle_pb2.Handle(id=value.id, generation=value.generation)


def space(view: SpaceView, names: Names) -> pb.Space:
    """Returns a space as a message."""
    return pb.Space(
        name=names.space(view.number),
        handle=handle_message(view.handle),
        kind=view.kind,  # type: ignore[arg-type]
        group=names.group(view.group),
        root_address=view.root_address,
        label=view.label,
        resident_pages=view.resident,
        swapped_pages=view.swapped,
        table_frames=view.table_frames,
        minor_faults=view.minor_faults,
        major_faults=view.major_faults,
        cow_faults=view.cow_faults,
        refused_faults=view.refused_faults,
    )


def entity(view: ObjectView, names: Names) -> pb.Object:
    """Returns an object as a message."""
    return pb.Object(
        name=names.object(view.number),
        handle=handle_message(view.handle),
        size_bytes=view.size,
        group=names.group(view.group),
        label=view.label,
        resident_pages=view.resident,
        swapped_pages=view.swapped,
    )


def group(view: GroupView, names: Names) -> pb.Group:
    """Returns a group as a message."""
    return pb.Group(
        name=names.group(view.name),
        parent=names.group(view.parent) if view.parent else "",
        max_bytes=view.max_bytes or 0,
        swap_max_bytes=view.swap_max_bytes,
        usage_bytes=view.usage * PAGE_SIZE,
        swap_usage_bytes=view.swap_usage * PAGE_SIZE,
        peak_bytes=view.peak * PAGE_SIZE,
        max_events=view.max_events,
        oom_events=view.oom_events,
        reclaimed_pages=view.reclaimed,
    )


def mapping(view: MappingView, names: Names) -> pb.Mapping:
    """Returns a mapping as a message."""
    vma = view.vma
    return pb.Mapping(
        start=vma.start,
        end=vma.end,
        protection=pb.Protection(
            read=bool(vma.rights & READ), write=bool(vma.rights & WRITE), execute=bool(vma.rights & EXECUTE)
        ),
        shared=vma.shared,
        object=names.object(view.object) if view.object else "",
        object_offset=vma.offset,
        label=vma.label,
        resident_pages=view.resident,
        swapped_pages=view.swapped,
        grows_down=vma.grows_down,
    )


def fault(result: FaultResult, group_name: str, victim: str) -> pb.FaultResponse:
    """Returns how a fault was resolved as a message."""
    return pb.FaultResponse(
        outcome=result.outcome,  # type: ignore[arg-type]
        frame=result.frame,
        entry=result.entry,
        steps=[pb.FaultStep(step=one.step, detail=one.detail, time_ns=one.time_ns) for one in result.steps],
        limit_group=group_name,
        victim_space=victim,
        refusal_reason=result.refusal_reason,
    )


def translation(found: Translation, names: Names) -> pb.TranslateResponse:
    """Returns an address explained as a message."""
    answer = pb.TranslateResponse(
        residency=_residency(found),
        page_number=found.address >> PAGE_SHIFT,
        offset=found.address % PAGE_SIZE,
        steps=[
            access_pb2.WalkStep(
                table=TABLE_NAMES[visit.level],
                level=visit.level,
                index=visit.index,
                entry_address=visit.entry_address,
                entry=visit.entry,
                bits=bit_names(visit.entry, visit.level),
                input_address=found.address,
            )
            for visit in found.visits
        ],
        copy_on_write=found.cow,
    )
    if found.mapping is not None:
        answer.mapping.CopyFrom(mapping(found.mapping, names))
    if found.frame:
        answer.frame = found.frame
        answer.physical_address = (found.frame << PAGE_SHIFT) + found.address % PAGE_SIZE
    if found.slot >= 0:
        answer.swap_slot = found.slot
    return answer


def _residency(found: Translation) -> Any:
    kinds = pb.TranslateResponse
    if found.mapping is None:
        return kinds.RESIDENCY_UNMAPPED
    if found.frame or found.hidden:
        return kinds.RESIDENCY_RAM
    return kinds.RESIDENCY_SWAP if found.slot >= 0 else kinds.RESIDENCY_NONE


def frame(view: FrameView, names: Names) -> pb.Frame:
    """Returns a frame as a message."""
    return pb.Frame(
        frame=view.frame,
        use=view.use + 1,  # type: ignore[arg-type]
        mappings=[
            pb.FrameMapping(space=names.space(number), address=vpn << PAGE_SHIFT) for number, vpn in view.mappings
        ],
        group=names.group(view.group) if view.group else "",
        pins=view.pins,
        owner=view.owner,
        mapping_count=view.mapping_count,
        dirty=view.dirty,
        swap_slot=view.slot if view.slot >= 0 else None,
    )


def memory(view: MemoryView) -> pb.MemoryStatus:
    """Returns the state of memory as a message."""
    return pb.MemoryStatus(
        total_frames=view.total,
        free_frames=view.free,
        uses=[pb.UseCount(use=use + 1, frames=number) for use, number in view.uses],  # type: ignore[arg-type]
        swap_slots=view.swap_slots,
        free_swap_slots=view.free_swap_slots,
        swapped_out_pages=view.swapped_out,
        swapped_in_pages=view.swapped_in,
        dropped_pages=view.dropped,
        policy=view.policy,
    )
