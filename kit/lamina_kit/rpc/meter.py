"""Counts the calls of one layer, on sockets and in process alike: how many by method and code, how long, how many open.

The guard around every handler (`interceptor.py`) begins and ends each call here; a call costs two looks at the clock
and a few additions. Durations are by the clock of the layer, so in virtual time they are those of the model. Streams
last as long as their callers want: they are counted, and their durations are not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from lamina_kit.clock import Clock
from lamina_kit.telemetry.metrics import NS, SECONDS, Distribution, Family, Sample

CANCELLED = "CANCELLED"
"""How a call ends whose caller has gone, as far as the handler's side knows."""


class MethodMeter:
    """The calls of one method. `lasting` ones answer with a stream."""

    __slots__ = ("_now_ns", "codes", "counts", "lasting", "name", "open", "sum_ns")

    def __init__(self, name: str, now_ns: Callable[[], int], lasting: bool) -> None:
        self.name = name
        self.lasting = lasting
        self.open = 0
        self.codes: dict[str, int] = {}
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum_ns = 0
        self._now_ns = now_ns

    def begin(self) -> int:
        """Counts a call in; returns when it began, for `end`."""
        self.open += 1
        return self._now_ns()

    def end(self, began_ns: int, code: str) -> None:
        """Counts a call out by the name of its gRPC code."""
        self.open -= 1
        codes = self.codes
        codes[code] = codes.get(code, 0) + 1
        if not self.lasting:
            took = self._now_ns() - began_ns
            self.counts[bisect_left(SECONDS, took)] += 1
            self.sum_ns += took


class CallMeter:
    """The calls of one layer by method."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._methods: dict[str, MethodMeter] = {}

    def method(self, name: str, *, lasting: bool) -> MethodMeter:
        """Returns the meter of a method, `lamina.mmu.v1.Spaces/Fault`; the same one for the same name."""
        found = self._methods.get(name)
        if found is None:
            found = self._methods[name] = MethodMeter(name, self._clock.now_ns, lasting)
        return found

    def families(self) -> Iterable[Family]:
        """Yields the metrics of calls; methods that nobody called are left out."""
        called = [meter for meter in self._methods.values() if meter.codes or meter.open]
        yield Family(
            "lamina_calls_total",
            "counter",
            "Calls that ended, by method and gRPC code; CANCELLED also where the caller's deadline passed.",
            tuple(
                Sample((("code", code), ("method", meter.name)), count)
                for meter in called
                for code, count in meter.codes.items()
            ),
        )
        yield Family(
            "lamina_calls_open",
            "gauge",
            "Calls whose handler is at work, streams among them, by method.",
            tuple(Sample((("method", meter.name),), meter.open) for meter in called),
        )
        yield Family(
            "lamina_call_duration_seconds",
            "histogram",
            "Duration of calls with one response, by method, on the stack's clock.",
            distributions=tuple(
                Distribution((("method", meter.name),), tuple(meter.counts), meter.sum_ns)
                for meter in called
                if not meter.lasting and meter.codes
            ),
            bounds=SECONDS,
            scale=NS,
        )
