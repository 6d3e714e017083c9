"""Draws a picture as SVG."""

from __future__ import annotations

from xml.sax.saxutils import escape

from lamina_cli.output.drawing.chart import HEIGHT, INK, WIDTH, Color, Picture, Text


def draw(picture: Picture) -> str:
    """Returns the picture as an SVG document."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for line in picture.lines:
        places = " ".join(f"{x:.2f},{y:.2f}" for x, y in line.points)
        parts.append(
            f'<polyline points="{places}" fill="none" stroke="{code(line.color)}" stroke-width="{line.width:g}"'
            ' stroke-linejoin="round"/>'
        )
    parts.extend(written(text) for text in picture.texts)
    return "\n".join([*parts, "</svg>", ""])


def written(text: Text) -> str:
    """Returns a text as an element."""
    size = ' font-size="17"' if text.large else ""
    turn = f' transform="rotate(-90 {text.x:.2f} {text.y:.2f})"' if text.turned else ""
    return (
        f'<text x="{text.x:.2f}" y="{text.y:.2f}" text-anchor="{text.anchor}" dominant-baseline="central"'
        f' fill="{code(INK)}"{size}{turn}>{escape(text.text)}</text>'
    )


def code(color: Color) -> str:
    """Returns a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*color)
