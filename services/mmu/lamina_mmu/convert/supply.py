"""Between the contract and the domain: suppliers and the content of objects (`supply.proto`)."""

from __future__ import annotations

from lamina.mmu.v1 import supply_pb2 as pb

from lamina_kit.checks import Checks
from lamina_kit.errors import InvalidArgument
from lamina_kit.paging import PAGE_SHIFT, PAGE_SIZE
from lamina_mmu.convert import mmu
from lamina_mmu.domain.handles import Handle
from lamina_mmu.domain.supply import MOST_PAGES, USUAL_READAHEAD, Demand, Message, Opened

MOST_OBJECTS = 4096


def opened(message: pb.SupplyOpen) -> tuple[list[Handle], int]:
    """Returns the objects that a stream supplies, and how many pages are asked for ahead."""
    with Checks() as check:
        check.range("open.objects", len(message.objects), 1, MOST_OBJECTS)
        check.range("open.readahead_pages", message.readahead_pages, 0, MOST_PAGES)
        handles = [(one.id, one.generation) for one in message.objects]
        check.that(len(dict.fromkeys(handles)) == len(handles), "open.objects", "names an object twice")
    return [Handle(*one) for one in handles], message.readahead_pages or USUAL_READAHEAD


def failure(text: str) -> str:
    """Returns why content could not be kept; SUPPLY_MALFORMED for what is no reason."""
    if len(text) > 63 or (text and not (text.isascii() and text.replace("_", "A").isalnum() and text.isupper())):
        raise InvalidArgument(
            "The failure of a keep is not UPPER_SNAKE of at most 63 characters.",
            reason="SUPPLY_MALFORMED",
            next_step="Say why in a word, for example WRITE_FAILED.",
        )
    return text


def invalidated(message: pb.SupplyInvalidated) -> tuple[Handle, int, int]:
    """Returns (object, offset, size) of content that changed behind an object."""
    with Checks() as check:
        check.aligned("invalidated.offset", message.offset, PAGE_SIZE)
        check.aligned("invalidated.size_bytes", message.size_bytes, PAGE_SIZE)
        check.range("invalidated.offset", message.offset, 0, mmu.MAX_OBJECT)
        check.range("invalidated.size_bytes", message.size_bytes, 1, mmu.MAX_OBJECT)
    return mmu.handle(message.object), message.offset, message.size_bytes


def content_range(offset: int, size: int) -> tuple[int, int]:
    """Returns (offset, size) of a range of an object, in bytes."""
    with Checks() as check:
        check.range("offset", offset, 0, mmu.MAX_OBJECT)
        check.range("size_bytes", size, 0, mmu.MAX_OBJECT)
    return offset, size


def sync_range(request: pb.SyncObjectRequest) -> tuple[int, int]:
    """Returns (offset, size) of a range of an object that begins at a page."""
    with Checks() as check:
        check.aligned("offset", request.offset, PAGE_SIZE)
    return content_range(request.offset, request.size_bytes)


def response(position: int, message: Message) -> pb.SupplyResponse:
    """Returns what the MMU says to a supplier as a message."""
    answer = pb.SupplyResponse(position=position)
    if isinstance(message, Opened):
        answer.opened.objects = message.objects
        return answer
    said = answer.demand if isinstance(message, Demand) else answer.keep
    said.sequence = message.sequence
    said.object.CopyFrom(mmu.handle_message(message.object))
    said.offset = message.first << PAGE_SHIFT
    said.pages = message.pages
    said.frames.extend(message.frames)
    if not isinstance(message, Demand):
        answer.keep.data = message.data
    return answer
