"""Draws a picture as PNG: twice as large as asked for, so that its dots are small.

Source: W3C, Portable Network Graphics (PNG) Specification.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from lamina_cli.output.drawing.chart import HEIGHT, INK, WIDTH, Line, Picture, Text
from lamina_cli.output.drawing.glyphs import COLUMNS, glyph

ZOOM = 2
SMOOTH = 2
"""Each pixel is the mean of so many dots in both directions."""
LETTER_WIDTH, LETTER_HEIGHT = 6, 8


def draw(picture: Picture) -> bytes:
    """Returns the picture as a PNG file."""
    scale = ZOOM * SMOOTH
    canvas = np.full((HEIGHT * scale, WIDTH * scale, 3), 255, np.uint8)
    for line in picture.lines:
        _stroke(canvas, line, scale)
    for text in picture.texts:
        _write(canvas, text, scale)
    small = canvas.reshape(HEIGHT * ZOOM, SMOOTH, WIDTH * ZOOM, SMOOTH, 3).mean(axis=(1, 3))
    return encoded(small.round().astype(np.uint8))


def _stroke(canvas: Any, line: Line, scale: int) -> None:
    """Draws a polyline as squares along it, half a dot apart."""
    size = max(1, round(line.width * scale))
    for (x0, y0), (x1, y1) in zip(line.points, line.points[1:], strict=False):
        steps = int(2 * scale * max(abs(x1 - x0), abs(y1 - y0))) + 1
        along = np.linspace(0.0, 1.0, steps + 1)
        left = np.round((x0 + (x1 - x0) * along) * scale - size / 2).astype(int)
        top = np.round((y0 + (y1 - y0) * along) * scale - size / 2).astype(int)
        for down in range(size):
            for right in range(size):
                rows = np.clip(top + down, 0, canvas.shape[0] - 1)
                columns = np.clip(left + right, 0, canvas.shape[1] - 1)
                canvas[rows, columns] = line.color


def _write(canvas: Any, text: Text, scale: int) -> None:
    """Draws a text with letters of dots."""
    dot = scale * (2 if text.large else 1) * 3 // 2
    letters = np.zeros((LETTER_HEIGHT, LETTER_WIDTH * max(1, len(text.text))), bool)
    for index, letter in enumerate(text.text):
        for column, bits in enumerate(glyph(letter)[:COLUMNS]):
            for row in range(LETTER_HEIGHT):
                letters[row, LETTER_WIDTH * index + column] = bits >> row & 1
    dots = np.kron(letters, np.ones((dot, dot), bool))
    if text.turned:
        dots = np.rot90(dots)
    height, width = dots.shape
    length = height if text.turned else width
    before = {"start": 0, "middle": length // 2, "end": length}[text.anchor]
    x, y = round(text.x * scale), round(text.y * scale)
    left, top = (x - width // 2, y - length + before) if text.turned else (x - before, y - height // 2)
    rows, columns = np.nonzero(dots)
    inside = (rows + top >= 0) & (rows + top < canvas.shape[0]) & (columns + left >= 0)
    inside &= columns + left < canvas.shape[1]
    canvas[rows[inside] + top, columns[inside] + left] = INK


def encoded(pixels: Any) -> bytes:
    """Returns an array of rows of RGB pixels (u8) as a PNG file."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _part(b"IHDR", header) + _part(b"IDAT", body) + _part(b"IEND", b"")


def _part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
