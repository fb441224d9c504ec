"""Plots as SVG by hand: bars with their spread, and lines. They follow the reader's light or dark colour scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .stats import Summary

WIDTH = 760
LEFT, RIGHT = 230, 70  # room for names, and for figures behind the bars
TOP, BOTTOM = 58, 34
BAR, GAP, GROUP_GAP = 13, 3, 11
LINE_HEIGHT = 300

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #59636e }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.spread { stroke: #1f2328; stroke-width: 1.2; fill: none }
.s0 { fill: #2f6fbd; stroke: #2f6fbd } .s1 { fill: #d4762c; stroke: #d4762c } .s2 { fill: #3b8f5a; stroke: #3b8f5a }
.line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9da7b1 } .grid { stroke: #3d444d } .spread { stroke: #e6edf3 }
  .s0 { fill: #5b9be6; stroke: #5b9be6 } .s1 { fill: #e8944f; stroke: #e8944f } .s2 { fill: #5fb981; stroke: #5fb981 }
}
"""


@dataclass(frozen=True)
class Series:
    """One colour: a name, and a summary for each row of the plot (None where there is none)."""

    name: str
    values: Sequence[Summary | None]


def nice_step(largest: float, steps: int = 6) -> float:
    """1, 2 or 5 times a power of ten, so that about so many steps reach largest."""
    rough = max(largest, 1e-9) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _document(height: float, title: str, unit: str, series: Sequence[Series], parts: list[str]) -> str:
    head = [_text(10, 20, title, kind="title"), _text(10, 38, unit, kind="small")]
    x = LEFT
    for number, one in enumerate(series if len(series) > 1 else ()):
        head.append(f'<rect class="s{number}" x="{x}" y="29" width="10" height="10"/>')
        head.append(_text(x + 15, 38, one.name))
        x += 40 + 8 * len(one.name)
    box = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    style = f"<style>{STYLE}</style>"
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {box}>', style, *head, *parts, "</svg>", ""])


def _largest(series: Sequence[Series]) -> float:
    return max((value.high for one in series for value in one.values if value), default=1.0) or 1.0


def _bar(number: int, value: Summary, y: float, scale: float) -> list[str]:
    middle = y + BAR / 2
    low, high = LEFT + value.low * scale, LEFT + value.high * scale
    return [
        f'<rect class="s{number}" x="{LEFT}" y="{y:.1f}" width="{value.median * scale:.1f}" height="{BAR}"/>',
        f'<path class="spread" d="M{low:.1f} {middle - 3:.1f}v6M{low:.1f} {middle:.1f}H{high:.1f}m0 -3v6"/>',
        _text(high + 6, y + BAR - 2.5, _number(value.median), kind="small"),
    ]


def bars(title: str, unit: str, rows: Sequence[str], series: Sequence[Series]) -> str:
    """Horizontal bars: a group for each row, the median as the bar and lowest to highest as the whisker."""
    group = len(series) * (BAR + GAP) + GROUP_GAP
    bottom = TOP + len(rows) * group
    step = nice_step(_largest(series))
    scale = (WIDTH - LEFT - RIGHT) / _largest(series)
    parts = []
    for tick in range(int(_largest(series) / step) + 1):
        x = LEFT + tick * step * scale
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP - 6}V{bottom:.1f}"/>')
        parts.append(_text(x, bottom + 16, f"{tick * step:g}", "middle", "small"))
    for row, name in enumerate(rows):
        y = TOP + row * group
        parts.append(_text(LEFT - 10, y + (group - GROUP_GAP) / 2 + 3, name, "end"))
        for number, one in enumerate(series):
            value = one.values[row]
            if value:
                parts += _bar(number, value, y + number * (BAR + GAP), scale)
    return _document(bottom + BOTTOM, title, unit, series, parts)


def lines(title: str, unit: str, x_name: str, xs: Sequence[float], series: Sequence[Series]) -> str:
    """Medians over xs, with the spread at each point; both axes begin at 0."""
    left, bottom, right = 70, TOP + LINE_HEIGHT, WIDTH - 30
    step = nice_step(_largest(series))
    x_scale, y_scale = (right - left) / (max(xs) or 1), LINE_HEIGHT / _largest(series)
    parts = []
    for tick in range(int(_largest(series) / step) + 1):
        y = bottom - tick * step * y_scale
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        parts.append(_text(left - 8, y + 4, f"{tick * step:g}", "end", "small"))
    parts += [_text(left + x * x_scale, bottom + 17, f"{x:g}", "middle", "small") for x in xs]
    parts.append(_text((left + right) / 2, bottom + 34, x_name, "middle"))
    for number, one in enumerate(series):
        points = [(left + x * x_scale, value) for x, value in zip(xs, one.values, strict=True) if value]
        path = " ".join(f"{x:.1f},{bottom - value.median * y_scale:.1f}" for x, value in points)
        parts.append(f'<polyline class="s{number} line" style="fill:none" points="{path}"/>')
        for x, value in points:
            y = bottom - value.median * y_scale
            spread = f"M{x:.1f} {bottom - value.low * y_scale:.1f}V{bottom - value.high * y_scale:.1f}"
            parts.append(f'<path class="spread" d="{spread}"/>')
            parts.append(f'<circle class="s{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    return _document(bottom + BOTTOM + 14, title, unit, series, parts)
