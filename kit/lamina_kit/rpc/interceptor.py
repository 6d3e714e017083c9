"""What happens around every handler, on sockets and in process alike.

For each call, in this order: the trace context is read from `traceparent` (or a new, unsampled trace begins); a unary
call without a deadline gets the default one; a sampled call is recorded as a span; and what the handler raises becomes
a status with details: a `LaminaError` as itself, the error of a call to a layer below as that error, anything else as
`Internal` with the trace id, logged with its traceback. Cancellation passes.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from lamina_kit.errors import Cancelled, DeadlineExceeded, Internal, LaminaError, Unimplemented
from lamina_kit.rpc import status
from lamina_kit.rpc.inproc.local import DEFAULT_TIMEOUT_S
from lamina_kit.rpc.meter import CANCELLED, CallMeter
from lamina_kit.telemetry import log, trace

Behaviour = Callable[[Any, Any], Any]
OK = "OK"


class Guard(grpc.aio.ServerInterceptor):
    """Wraps handlers for one layer.

    `recorder` keeps the spans; `default_timeout_s` is the deadline of unary calls that come without one;
    `calls` counts.
    """

    def __init__(
        self,
        recorder: trace.Recorder,
        default_timeout_s: float = DEFAULT_TIMEOUT_S,
        calls: CallMeter | None = None,
    ) -> None:
        self._recorder = recorder
        self._calls = calls or CallMeter(recorder.clock)
        self._timeout = default_timeout_s
        self._wrapped: dict[str, tuple[Any, Any]] = {}
        self._log = log.logger(recorder.layer)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Returns the wrapped handler of a method, for a `grpc.aio` server."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method: str = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = (handler, self._around(method, handler, True))
            self._wrapped[method] = known
        return known[1]

    def wrap(self, method: str, handler: Any) -> Any:
        """Returns the wrapped handler of a method, for a `LocalServer`, whose channels see to the deadline."""
        return self._around(method, handler, False)

    def _around(self, method: str, handler: Any, limited: bool) -> Any:
        codecs = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming and handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._streaming(method, handler.stream_stream), *codecs)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(method, handler.unary_stream), *codecs)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(method, handler.stream_unary, False), *codecs)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary, limited), *codecs)

    def _unary(self, method: str, behaviour: Behaviour, limited: bool) -> Behaviour:
        call = behaviour if inspect.iscoroutinefunction(behaviour) else as_coroutine(behaviour)
        name = method.removeprefix("/")
        meter = self._calls.method(name, lasting=False)

        async def answer(argument: Any, context: Any) -> Any:
            sampled = self._enter(context)
            began, code = meter.begin(), CANCELLED
            try:
                work = self._spanned(name, call, argument, context) if sampled else call(argument, context)
                if limited and context.time_remaining() is None:
                    async with asyncio.timeout(self._timeout):
                        result = await work
                else:
                    result = await work
                code = _code_set(context) or OK
                return result
            except grpc.aio.AbortError:
                code = _code_of_abort(context)
                raise
            except (Exception, asyncio.CancelledError) as error:
                problem = self._problem(name, context, error)
                code = problem.code
                await status.abort(context, problem)
            finally:
                meter.end(began, code)

        return answer

    def _streaming(self, method: str, behaviour: Behaviour) -> Behaviour:
        name = method.removeprefix("/")
        writes = behaviour if inspect.iscoroutinefunction(behaviour) else as_writer(behaviour)
        meter = self._calls.method(name, lasting=True)

        async def answer(argument: Any, context: Any) -> None:
            sampled = self._enter(context)
            began, code = meter.begin(), CANCELLED
            try:
                if sampled:
                    await self._spanned(name, writes, argument, context)
                else:
                    await writes(argument, context)
                code = _code_set(context) or OK
            except grpc.aio.AbortError:
                code = _code_of_abort(context)
                raise
            except (Exception, asyncio.CancelledError) as error:
                problem = self._problem(name, context, error)
                code = problem.code
                await status.abort(context, problem)
            finally:
                meter.end(began, code)

        return answer

    def _enter(self, context: Any) -> bool:
        """Makes the call's trace the current one; returns whether it is sampled."""
        current = trace.from_metadata(context.invocation_metadata()) or self._recorder.new_root()
        trace.enter(current, self._recorder)
        return current.sampled

    async def _spanned(self, name: str, call: Behaviour, argument: Any, context: Any) -> Any:
        with trace.span(name) as span:
            result = await call(argument, context)
            if code := _code_set(context):
                span.end_as(code)
            return result

    def _problem(self, name: str, context: Any, error: BaseException) -> LaminaError:
        """Returns what the call is to end with for `error`; cancellation of the call itself passes."""
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise error
        if context.done():
            raise error
        return self._translate(name, error)

    def _translate(self, name: str, error: BaseException) -> LaminaError:
        if isinstance(error, LaminaError):
            if isinstance(error, Internal):
                self._log.error("call.failed", method=name, reason=error.reason, exc_info=error)
            return error
        if isinstance(error, grpc.aio.AioRpcError):
            return status.rpc_error(error)
        if isinstance(error, TimeoutError):
            return DeadlineExceeded(
                f"{name} took longer than {self._timeout:g} s.",
                reason="DEADLINE_DEFAULT",
                next_step="Give the call a deadline of its own.",
            )
        if isinstance(error, asyncio.CancelledError):
            return Cancelled(f"{name} waited for something that was cancelled.", reason="WORK_CANCELLED")
        if isinstance(error, NotImplementedError):
            return Unimplemented(f"{name} is not offered by this engine.", reason="METHOD_UNIMPLEMENTED")
        current = trace.current()
        trace_id = current.trace_id if current else ""
        self._log.error("call.crashed", method=name, exc_info=error)
        return Internal(
            f"{name} failed by a defect: {type(error).__name__}.",
            reason="UNEXPECTED",
            next_step=f"Report it with the log lines of trace {trace_id}.",
            trace_id=trace_id,
        )


def as_coroutine(behaviour: Behaviour) -> Behaviour:
    """Returns an async form of a plain function; it runs in the event loop, so it must not block."""

    async def call(argument: Any, context: Any) -> Any:
        result = behaviour(argument, context)
        return await result if inspect.isawaitable(result) else result

    return call


def as_writer(behaviour: Behaviour) -> Behaviour:
    """Returns the writing form of a handler that yields its responses; the generator is closed with the call."""

    async def write(argument: Any, context: Any) -> None:
        result = behaviour(argument, context)
        if inspect.isasyncgen(result):
            async with aclosing(result):
                async for response in result:
                    await context.write(response)
        elif inspect.isawaitable(result):
            await result
        else:
            for response in result:
                await context.write(response)

    return write


def _code_set(context: Any) -> str:
    """Returns the name of a status code that a handler set without raising; empty when it is OK."""
    code = context.code()
    if not code or code is grpc.StatusCode.OK:
        return ""
    number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
    return next((entry.name for entry in grpc.StatusCode if entry.value[0] == number and number), "")


def _code_of_abort(context: Any) -> str:
    """Returns the name of the status with which a handler aborted its call."""
    code = getattr(context, "code_now", None) or context.code()
    return code.name if isinstance(code, grpc.StatusCode) else _code_set(context)
