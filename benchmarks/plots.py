"""Plain SVG, written by hand: two kinds of plot, no dependency, and a file that changes only where a number does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

__all__ = ["bars", "lines"]

WIDTH: Final = 760
LABELS: Final = 300
ROW: Final = 26
COLOURS: Final = ("#0b6e4f", "#c1440e", "#2f4b7c", "#8d6a9f", "#7a7a7a", "#b58900")
OURS: Final = "#0b6e4f"
THEIRS: Final = "#9aa5b1"


def bars(title: str, unit: str, values: Mapping[str, float], ours: Sequence[str]) -> str:
    """One bar for each value, in the given order; those of ``ours`` stand out."""
    room = WIDTH - LABELS - 110
    scale = room / max(values.values())
    shapes = []
    for index, (name, value) in enumerate(values.items()):
        y = 44 + index * ROW
        colour = OURS if name in ours else THEIRS
        width = max(1.0, value * scale)
        shapes += [
            _text(LABELS - 8, y + 14, name, anchor="end"),
            f'<rect x="{LABELS}" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>',
            _text(LABELS + width + 6, y + 14, short(value)),
        ]
    return _svg(60 + len(values) * ROW, f"{title} ({unit})", shapes)


def lines(title: str, across: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One line for each series over a logarithmic x axis; y begins at zero."""
    left, top, width, height = 80.0, 44.0, WIDTH - 320.0, 260.0
    xs = sorted({x for points in series.values() for x, _ in points})
    most = max(y for points in series.values() for _, y in points) * 1.1
    low, high = math.log10(xs[0]), math.log10(xs[-1])

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (math.log10(x) - low) / (high - low) * width, top + height * (1 - y / most)

    shapes = [f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#444"/>']
    shapes += [_text(place(x, 0)[0], top + height + 18, short(x), anchor="middle") for x in xs]
    shapes.append(_text(left + width / 2, top + height + 38, across, anchor="middle"))
    ticks = [index * _step(most) for index in range(int(most / _step(most)) + 1)]
    shapes += [_text(left - 8, place(xs[0], y)[1] + 4, short(y), anchor="end") for y in ticks]
    for index, (name, points) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes.append(_text(left + width + 16, top + 12 + index * 20, name, colour=colour))
    return _svg(top + height + 56, f"{title} ({unit})", shapes)


def _step(most: float) -> float:
    """A round distance between ticks, of which there are a few up to ``most``."""
    size = 10 ** math.floor(math.log10(most))
    return next(size * part for part in (0.2, 0.5, 1, 2) if most / (size * part) <= 6)


def short(value: float) -> str:
    """A number with three digits and a letter for its size."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _svg(height: float, title: str, shapes: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" font-family="sans-serif" '
        'font-size="13"><rect width="100%" height="100%" fill="#fff"/>'
    )
    heading = f'<text x="12" y="24" font-size="15" font-weight="bold" fill="#222">{escape(title)}</text>'
    return "\n".join((head, heading, *shapes, "</svg>\n"))
