"""The layers below a process: who is there, of which boot, and when that changes.

Each layer below is followed by one task: it waits until the layer serves, shakes hands, and watches its health until
that ends. `ready` returns when all that are needed serve and speak of one boot; `changed` when one of them has come
back with another boot. That is the host's loss of power: what this process had in the layers below is gone.
`on_change` is told whenever one comes or goes.

A boot id is a path. The hardware's names one start of the machine, and the MMU's, whose death is the host's death too,
adds its own start to it: `boot-4kx7m2qd.mmu-2b7xk9q4`. Two layers speak of one boot when one id begins with the other.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lamina.common.v1 import layer_pb2_grpc

from lamina_kit.clock import Clock
from lamina_kit.errors import FailedPrecondition, LaminaError, Unavailable
from lamina_kit.layer.owner_session import handshake
from lamina_kit.rpc.channel import Channel
from lamina_kit.rpc.status import rpc_error
from lamina_kit.security.tls_probe import diagnose
from lamina_kit.security.transport import PLAIN, Security
from lamina_kit.telemetry import log

LOOK_NS = 100_000_000
"""Pause between two looks at a layer that does not serve."""
ANSWER_S = 5.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
TRANSPORT = "RPC_UNAVAILABLE"
"""Reason of an error that gRPC itself raised: nobody answered."""
_NEVER = ("FAILED_PRECONDITION", "INVALID_ARGUMENT", "UNIMPLEMENTED", "PERMISSION_DENIED")
"""Codes of errors that no waiting mends; all others say: not now."""


def extend_boot(below: str, own: str) -> str:
    """Returns the boot id of a layer whose own start `own` is a boot of the host too, above the boot `below`."""
    return f"{below}.{own}" if below else own


def one_boot(boots: Sequence[str]) -> bool:
    """Says whether all boot ids speak of one boot: each begins with the next shorter one."""
    by_length = sorted(boots, key=len)
    return all(
        longer == shorter or not shorter or longer.startswith(f"{shorter}.") for shorter, longer in pairwise(by_length)
    )


class Upstreams:
    """Follows the layers that one layer calls. `host` is the host that they must be of, empty for any."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        targets: Mapping[str, str],
        caller: str,
        host: str,
        clock: Clock,
        security: Security = PLAIN,
    ) -> None:
        self._channels = channels
        self._targets = targets
        self._caller = caller
        self._host = host
        self._clock = clock
        self._security = security
        self._answers: dict[str, Any] = {}
        self._problems: dict[str, LaminaError] = {}
        self._fatal: LaminaError | None = None
        self._started_on: dict[str, str] = {}
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._log = log.logger(caller)
        self.on_change: Callable[[str, bool], Awaitable[None]] | None = None

    def follow(self) -> None:
        """Starts to follow."""
        loop = asyncio.get_running_loop()
        for layer in self._channels:
            work = self._follow(layer)
            self._tasks.append(loop.create_task(work, name=f"below/{layer}", context=contextvars.Context()))

    async def stop(self) -> None:
        """Stops to follow. Idempotent."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def missing(self, needed: Sequence[str] = ()) -> list[str]:
        """Returns the layers, of all or of those needed, that do not serve now."""
        return [layer for layer in needed or self._channels if layer not in self._answers]

    def answer(self, layer: str) -> Any | None:
        """Returns what a layer said in its handshake, or None while it does not serve."""
        return self._answers.get(layer)

    async def ready(self, needed: Sequence[str]) -> None:
        """Returns when the needed layers serve and speak of one boot, which is then the one that `changed` compares.

        Raises:
            FailedPrecondition: `REVISION_MISMATCH`, `UPSTREAM_WRONG` or `HOST_MISMATCH`: waiting would not help.
        """
        while True:
            news = self._news
            if self._fatal is not None:
                raise self._fatal
            if not self.missing(needed) or not needed:
                boots = {layer: str(self._answers[layer].boot_id) for layer in needed}
                if one_boot(list(boots.values())):
                    self._started_on = boots
                    return
            await news.wait()

    async def changed(self) -> tuple[str, str]:
        """Returns (layer, its new boot id) when a needed layer has come back with another boot than at `ready`."""
        while True:
            news = self._news
            for layer, boot in self._started_on.items():
                answer = self._answers.get(layer)
                if self._fatal is not None:
                    raise self._fatal
                if answer is not None and answer.boot_id != boot:
                    return layer, str(answer.boot_id)
            await news.wait()

    async def time_ns(self, patience_s: float) -> int | None:
        """Returns the stack's time now, as the first layer below that serves tells it; None when none does in time."""
        try:
            async with asyncio.timeout(patience_s):
                while not self._answers:
                    await self._news.wait()
                layer = next(layer for layer in self._channels if layer in self._answers)
                answer = await handshake(layer_pb2_grpc.LayerStub(self._channels[layer]), self._caller)
        except TimeoutError:
            return None
        except grpc.aio.AioRpcError as error:
            raise rpc_error(error) from error
        return int(answer.time_ns)

    def waiting_for(self, needed: Sequence[str]) -> Unavailable:
        """Returns what a caller is told while this layer waits for layers below."""
        missing = self.missing(needed)
        places = ", ".join(f"{layer} at {self._targets[layer]}" for layer in missing)
        why = next((str(self._problems[layer].message) for layer in missing if layer in self._problems), "")
        if missing:
            text = f"The {self._caller} layer waits for {places}{f': {why}' if why else ''}."
        elif one_boot([str(self._answers[layer].boot_id) for layer in needed]):
            text = f"The {self._caller} layer is starting."
        else:
            text = f"The {self._caller} layer is starting: the layers below do not speak of one boot yet."
        return Unavailable(
            text,
            reason="LAYER_STARTING",
            next_step=f"Start the {missing[0]} layer, or wait." if missing else "Try again in a moment.",
            layer=self._caller,
            missing=",".join(missing),
        )

    def explain(self, error: LaminaError) -> LaminaError:
        """Returns an error of the transport as one that names the layers below that do not answer."""
        missing = self.missing() or list(self._channels)
        places = " or ".join(f"{layer} at {self._targets[layer]}" for layer in missing)
        return Unavailable(
            f"The {self._caller} layer cannot do it: no answer from {places}.",
            reason="LAYER_MISSING",
            next_step=f"`lamina status` shows who is missing; retry when {missing[0]} serves again.",
            layer=missing[0],
            cause=error.message,
        )

    # ── one layer ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self, layer: str) -> None:
        checker: Any = health_pb2_grpc.HealthStub(self._channels[layer])
        while True:
            try:
                await self._meet(layer, checker)
                await self._until_lost(checker)
                self._problems.pop(layer, None)
            except grpc.aio.AioRpcError as error:
                self._note(layer, await self._explained(layer, rpc_error(error)))
            except LaminaError as error:
                self._note(layer, error)
            if self._answers.pop(layer, None) is not None:
                self._log.warning("upstream.lost", upstream=layer, target=self._targets[layer])
            await self._tell(layer, False)
            await self._clock.sleep_ns(LOOK_NS)

    async def _meet(self, layer: str, checker: Any) -> None:
        """Notes a layer that serves; raises for one that does not."""
        if not await _serves(checker):
            raise Unavailable(f"The {layer} layer is there but does not serve yet.", reason="LAYER_STARTING")
        answer = await handshake(layer_pb2_grpc.LayerStub(self._channels[layer]), self._caller)
        self._check(layer, answer)
        self._answers[layer] = answer
        self._problems.pop(layer, None)
        self._log.info("upstream.found", upstream=layer, boot_id=answer.boot_id, revision=answer.revision)
        await self._tell(layer, True)

    async def _until_lost(self, checker: Any) -> None:
        """Returns when a layer that served does not any more; the end of the stream is that too."""
        stream = checker.Watch(health_pb2.HealthCheckRequest())
        try:
            async for change in stream:
                if change.status != _SERVING:
                    return
        finally:
            stream.cancel()

    def _check(self, layer: str, answer: Any) -> None:
        if answer.layer != layer:
            raise FailedPrecondition(
                f"{self._targets[layer]} answers as the {answer.layer} layer, not as {layer}.",
                reason="UPSTREAM_WRONG",
                next_step=f"Give --upstream {layer}=ADDRESS the address of the {layer} layer.",
            )
        if self._host and answer.host and answer.host != self._host:
            raise FailedPrecondition(
                f"The {layer} layer at {self._targets[layer]} is of host {answer.host}, not of {self._host}.",
                reason="HOST_MISMATCH",
                next_step="Give both the same --host, or another --upstream.",
            )

    async def _explained(self, layer: str, error: LaminaError) -> LaminaError:
        """Returns an error of the transport as what is wrong with a certificate, when that is why."""
        target = self._targets[layer]
        if error.reason != TRANSPORT or self._security == PLAIN:
            return error
        found = await diagnose(target, self._security)
        if found is None:
            return error
        self._log.warning("upstream.not_trusted", upstream=layer, reason=found.reason, message=found.message)
        return Unavailable(found.message, reason=found.reason, next_step=found.next_step)

    def _note(self, layer: str, error: LaminaError) -> None:
        self._problems[layer] = error
        if error.code in _NEVER:
            self._fatal = error

    async def _tell(self, layer: str, serves: bool) -> None:
        self._news.set()
        self._news = asyncio.Event()
        if self.on_change is not None:
            await self.on_change(layer, serves)


async def _serves(checker: Any) -> bool:
    """Says whether a layer serves; one without a health service does when it answers."""
    try:
        found = await checker.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return True
        raise
    return bool(found.status == _SERVING)
