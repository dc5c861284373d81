"""A plot of lines over a logarithmic axis as SVG, made without any library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 470
LEFT, RIGHT, TOP, BOTTOM = 84, 230, 56, 60
COLOURS = ("#c2410c", "#2563eb", "#15803d", "#7c3aed", "#0e7490", "#a16207", "#be185d", "#475569", "#4d7c0f")

Points = Sequence[tuple[float, float]]


def plot(title: str, across: str, up: str, lines: Mapping[str, Points]) -> str:
    """Return an SVG with a line for each name; both axes are logarithmic, so that ratios are lengths.

    Args:
        title: above the plot.
        across: what the x axis counts.
        up: what the y axis counts.
        lines: name -> points (x, y), all above 0.
    """
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="26" font-size="16" font-weight="600">{escape(title)}</text>',
        f'<text x="{LEFT}" y="{TOP - 10}" fill="#555">{escape(up)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle" fill="#555">'
        f"{escape(across)}</text>",
    ]
    for x in xs:
        at = _place(x, xs[0], xs[-1], LEFT + 16, WIDTH - RIGHT - 16)
        parts.append(f'<line x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>')
        parts.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{x:,.0f}</text>')
    for step in _steps(low, high):
        at = _place(step, low, high, HEIGHT - BOTTOM, TOP)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4}" text-anchor="end">{step:,.0f}</text>')
    ends = {}
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        spots = [
            (
                _place(x, xs[0], xs[-1], LEFT + 16, WIDTH - RIGHT - 16),
                _place(y, low, high, HEIGHT - BOTTOM, TOP),
            )
            for x, y in points
        ]
        path = " ".join(f"{x},{y}" for x, y in spots)
        wide = 3 if number == 0 else 1.8
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>' for x, y in spots]
        ends[name] = (spots[-1], colour)
    parts += _labels(ends)
    return "\n".join([*parts, "</svg>\n"])


def _labels(ends: Mapping[str, tuple[tuple[float, float], str]]) -> list[str]:
    """Names beside the ends of their lines, moved apart where they would lie on each other."""
    parts = []
    lowest = TOP - 20.0
    for name, ((x, y), colour) in sorted(ends.items(), key=lambda item: item[1][0][1]):
        lowest = max(y, lowest + 17)
        at = WIDTH - RIGHT + 26
        parts.append(
            f'<line x1="{x + 5}" y1="{y}" x2="{at - 4}" y2="{lowest}" stroke="{colour}" opacity=".4"/>'
        )
        parts.append(f'<text x="{at}" y="{lowest + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    return parts


def _steps(low: float, high: float) -> list[float]:
    powers = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    return [step for power in powers for step in (power, 2 * power, 5 * power) if step <= high]


def _place(value: float, low: float, high: float, start: float, end: float) -> float:
    if high == low:
        return (start + end) / 2
    share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return round(start + share * (end - start), 1)
