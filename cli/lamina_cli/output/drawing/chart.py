"""A line chart as primitives: lines and texts at places of a fixed canvas. Pure; `svg` and `png` draw them.

The x axis is logarithmic when its largest value is at least a hundred times its smallest, the y axis starts at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 800, 500
LEFT, RIGHT, TOP, BOTTOM = 80, 150, 48, 60
INK, FAINT = (34, 34, 34), (221, 221, 221)
COLORS = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (120, 94, 240), (128, 128, 0), (110, 60, 20), (60, 60, 60), (220, 40, 40),
)  # fmt: skip
"""Okabe and Ito's first, which people with any colour vision tell apart; then others."""
MOST_POINTS = 2000
"""Points of a line that are drawn: more than the canvas has columns."""

Point = tuple[float, float]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Series:
    """A named line: points with ascending x, which is above 0."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Line:
    """A polyline in pixels from the top left."""

    points: tuple[Point, ...]
    color: Color
    width: float


@dataclass(frozen=True)
class Text:
    """A text of one line, whose vertical middle is at y; anchor: start, middle or end at x. Turned: reads upwards."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    large: bool = False
    turned: bool = False


@dataclass(frozen=True)
class Picture:
    """What is drawn, in its order, on white."""

    lines: tuple[Line, ...]
    texts: tuple[Text, ...]


def lines(title: str, x_name: str, y_name: str, series: Sequence[Series]) -> Picture:
    """Returns a chart of the series."""
    values = [point for one in series for point in one.points] or [(1.0, 0.0)]
    low, high = min(x for x, _ in values), max(x for x, _ in values)
    scale = Scale(low, high, max(y for _, y in values))
    drawn: list[Line] = []
    texts = [
        Text(WIDTH / 2, 22, title, "middle", large=True),
        Text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, x_name, "middle"),
        Text(18, (TOP + HEIGHT - BOTTOM) / 2, y_name, "middle", turned=True),
    ]
    for value in scale.y_ticks():
        y = scale.y(value)
        drawn.append(Line(((LEFT, y), (WIDTH - RIGHT, y)), FAINT, 1))
        texts.append(Text(LEFT - 8, y, f"{value:.3g}", "end"))
    for value in scale.x_ticks():
        x = scale.x(value)
        drawn.append(Line(((x, TOP), (x, HEIGHT - BOTTOM)), FAINT, 1))
        texts.append(Text(x, HEIGHT - BOTTOM + 16, short(value), "middle"))
    corner = (LEFT, HEIGHT - BOTTOM)
    drawn.append(Line(((LEFT, TOP), corner, (WIDTH - RIGHT, HEIGHT - BOTTOM)), INK, 1))
    for index, one in enumerate(series):
        color = COLORS[index % len(COLORS)]
        drawn.append(Line(tuple((scale.x(x), scale.y(y)) for x, y in thinned(one.points)), color, 2))
        y = TOP + 10 + 20 * index
        drawn.append(Line(((WIDTH - RIGHT + 14, y), (WIDTH - RIGHT + 36, y)), color, 3))
        texts.append(Text(WIDTH - RIGHT + 42, y, one.name))
    return Picture(tuple(drawn), tuple(texts))


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Returns at most `MOST_POINTS` points, evenly spread by logarithm, first and last among them."""
    if len(points) <= MOST_POINTS:
        return points
    last = len(points) - 1
    places = (round((last + 1) ** (index / (MOST_POINTS - 1))) - 1 for index in range(MOST_POINTS))
    return [points[at] for at in dict.fromkeys(places)]


def short(value: float) -> str:
    """Returns a number for an axis: 1500 as 1.5k."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


class Scale:
    """Where values stand on the canvas."""

    def __init__(self, low: float, high: float, top: float) -> None:
        self._logarithmic = high >= 100 * low
        self._low, self._high = self._along(low), self._along(high)
        self._top = ceiling(top)
        self._ends = (low, high)

    def _along(self, value: float) -> float:
        return math.log10(value) if self._logarithmic else value

    def x(self, value: float) -> float:
        """Returns the place of an x value."""
        span = self._high - self._low
        part = (self._along(value) - self._low) / span if span else 0.5
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Returns the place of a y value."""
        return HEIGHT - BOTTOM - value / self._top * (HEIGHT - TOP - BOTTOM)

    def y_ticks(self) -> list[float]:
        """Returns values for the y axis."""
        return [self._top * index / 5 for index in range(6)]

    def x_ticks(self) -> list[float]:
        """Returns values for the x axis: powers of ten, or five even steps."""
        low, high = self._ends
        if self._logarithmic:
            return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        return sorted({float(round(low + (high - low) * index / 5)) for index in range(6)})


def ceiling(value: float) -> float:
    """Returns the smallest of 1, 2, 2.5 or 5 times a power of ten that is at least `value`; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-12)), 10 * power)
