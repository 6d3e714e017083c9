"""Runs the handler of an in-process call, and turns its end into the call's."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
from grpc.aio import AbortError

from lamina_kit.rpc.inproc.call import LocalContext
from lamina_kit.rpc.inproc.route import Route

_LOG = logging.getLogger(__name__)
_INTERNAL = grpc.StatusCode.INTERNAL


async def handle(rpc: LocalContext, route: Route, raw: bytes | None) -> None:
    """Runs a call's handler to its end; `raw` is the request of a method that takes one."""
    rpc.started = True
    if not rpc.at_once:
        rpc.limit()
    try:
        argument = rpc.requests_of() if raw is None else route.deserialize(raw)
        if rpc.responses is not None:
            await _stream(route.behaviour, argument, rpc)
            rpc.finish()
        else:
            rpc.finish(await route.behaviour(argument, rpc), unary=True)
    except AbortError:
        rpc.conclude(_INTERNAL, "The handler raised AbortError without calling abort.")
    except asyncio.CancelledError:
        rpc.conclude(grpc.StatusCode.CANCELLED, "The handler was cancelled.")
    except Exception as error:
        _LOG.exception("the handler of %s, or its codecs, failed", route.method)
        rpc.conclude(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
    finally:
        rpc.active.pop(rpc, None)


async def _stream(behaviour: Any, argument: Any, context: LocalContext) -> None:
    """Runs a handler of a response stream in either style: one that yields, or one that writes to its context."""
    result = behaviour(argument, context)
    if not hasattr(result, "__aiter__"):
        await result
        return
    try:
        async for response in result:
            await context.write(response)
    finally:
        if hasattr(result, "aclose"):
            await result.aclose()


async def until_done(task: asyncio.Task[None], limit_s: float) -> None:
    """Waits for a handler's task to end, `limit_s` seconds at most, without cancelling it and without its result."""
    ended = asyncio.get_running_loop().create_future()

    def note(_: asyncio.Task[None]) -> None:
        if not ended.done():
            ended.set_result(None)

    if task.done():
        return
    task.add_done_callback(note)
    try:
        async with asyncio.timeout(limit_s):
            await ended
    except TimeoutError:
        return
    finally:
        task.remove_done_callback(note)
