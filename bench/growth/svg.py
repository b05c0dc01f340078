"""Charts as SVG, written by hand: panels side by side, each with axes, grid, curves, marks and a legend.

Every point is marked, each curve with a mark of its own, so that they can be told apart without colour; the colours are
Okabe and Ito's. A mark says its figure when pointed at. No font is named but the reader's own sans-serif.
"""

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 22, 46, 106
PER_ROW = 2
HEAD = 62
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
TEXT, FAINT, GRID = "#222222", "#666666", "#e2e2e2"
# Beyond this ratio a linear axis would lay the small figures on the ground.
LINEAR_RATIO_MAX = 20


@dataclass
class Panel:
    title: str
    x: str
    unit: str
    powers: bool
    series: dict

    def xs(self):
        return sorted({x for points in self.series.values() for x, _ in points})

    def ys(self):
        return [y for points in self.series.values() for _, y in points]


class Scale:
    """From figures to pixels, and where the ticks are."""

    def __init__(self, low, high, start, end, logarithmic, ticks):
        self.logarithmic = logarithmic
        self.low, self.high = (math.log(low), math.log(high)) if logarithmic else (low, high)
        self.start, self.end = start, end
        self.ticks = ticks

    def at(self, value):
        value = math.log(value) if self.logarithmic else value
        share = (value - self.low) / ((self.high - self.low) or 1)
        return self.start + share * (self.end - self.start)


def scale_x(panel):
    ticks = panel.xs() or [1]
    low, high = ticks[0], ticks[-1]
    # Room at both ends, so that no mark sits on the frame.
    if panel.powers:
        room = (high / low) ** 0.04 if high > low else 1.5
        return Scale(low / room, high * room, LEFT, WIDTH - RIGHT, True, ticks)
    room = (high - low) * 0.04 or 0.5
    return Scale(low - room, high + room, LEFT, WIDTH - RIGHT, False, ticks)


def scale_y(panel):
    ys = [y for y in panel.ys() if y > 0] or [1]
    low, high = min(ys), max(ys)
    bottom, top = HEIGHT - BOTTOM, TOP
    if panel.powers and high / low > LINEAR_RATIO_MAX:
        ticks = ticks_between(low, high)
        return Scale(ticks[0], ticks[-1], bottom, top, True, ticks)
    step = nice_step(high)
    count = math.ceil(high * 1.02 / step)
    return Scale(0, step * count, bottom, top, False, [step * n for n in range(count + 1)])


def ticks_between(low, high):
    """Powers of ten, with 2 and 5 in between where they are few. The ends take in `low` and `high`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [float(f"{t}e{n}") for n in decades for t in times]
    first = max(n for n, tick in enumerate(ticks) if tick <= low)
    last = min(n for n, tick in enumerate(ticks) if tick >= high)
    return ticks[first : last + 1]


def nice_step(high):
    """1, 2 or 5 times a power of ten, for four to eight ticks."""
    power = 10.0 ** math.floor(math.log10(high / 4))
    return next(power * times for times in (1, 2, 5, 10) if high / (power * times) <= 7)


def figure(value):
    if value >= 1_000_000:
        return f"{value / 1_000_000:g} M"
    if value >= 1_000:
        return f"{value / 1_000:g} k"
    return f"{value:g}"


def text(x, y, words, size=12, anchor="start", colour=TEXT, more=""):
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}"{more}>{escape(words)}</text>'


def line(x1, y1, x2, y2, colour, width=1.0):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


# --- marks: a curve's number chooses its shape ------------------------------------------------------------------


def mark(number, x, y, words=""):
    colour = COLOURS[number % len(COLOURS)]
    shape = (circle, square, triangle, diamond)[number % 4](x, y)
    inside = f"<title>{escape(words)}</title>" if words else ""
    return f'<{shape} fill="#ffffff" stroke="{colour}" stroke-width="2">{inside}</{shape.split()[0]}>'


def circle(x, y):
    return f'circle cx="{x:.1f}" cy="{y:.1f}" r="4"'


def square(x, y):
    return f'rect x="{x - 3.6:.1f}" y="{y - 3.6:.1f}" width="7.2" height="7.2"'


def triangle(x, y):
    return f'path d="M{x:.1f} {y - 5:.1f} l4.8 8.4 h-9.6 z"'


def diamond(x, y):
    return f'path d="M{x:.1f} {y - 5.2:.1f} l5.2 5.2 l-5.2 5.2 l-5.2 -5.2 z"'


# --- a panel -----------------------------------------------------------------------------------------------------


def draw_panel(panel):
    across, up = scale_x(panel), scale_y(panel)
    parts = [text(LEFT, 20, panel.title, 14, more=' font-weight="bold"')]
    parts.append(text(LEFT, 37, panel.unit + (", log scale" if up.logarithmic else ""), 11, colour=FAINT))
    parts += draw_axes(across, up, panel.x)
    for number, (name, points) in enumerate(panel.series.items()):
        parts += draw_curve(number, name, points, across, up, panel.unit)
    parts += draw_legend(panel)
    return parts


def draw_axes(across, up, words):
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in up.ticks:
        parts.append(line(LEFT, up.at(tick), right, up.at(tick), GRID))
        parts.append(text(LEFT - 8, up.at(tick) + 4, figure(tick), 11, "end", FAINT))
    for tick in across.ticks:
        parts.append(line(across.at(tick), bottom, across.at(tick), bottom + 5, FAINT))
        parts.append(text(across.at(tick), bottom + 18, figure(tick), 11, "middle", FAINT))
    parts.append(line(LEFT, bottom, right, bottom, FAINT))
    parts.append(line(LEFT, TOP, LEFT, bottom, FAINT))
    scale = ", log scale" if across.logarithmic else ""
    parts.append(text((LEFT + right) / 2, bottom + 36, words + scale, 11, "middle", FAINT))
    return parts


def draw_curve(number, name, points, across, up, unit):
    places = [(across.at(x), up.at(y), x, y) for x, y in points if y > 0 or not up.logarithmic]
    colour = COLOURS[number % len(COLOURS)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    parts += [mark(number, x, y, f"{name}: {value:g} {unit} at {of:g}") for x, y, of, value in places]
    return parts


def draw_legend(panel):
    parts = []
    for number, name in enumerate(panel.series):
        y = HEIGHT - BOTTOM + 56 + 17 * number
        parts.append(line(LEFT, y - 4, LEFT + 28, y - 4, COLOURS[number % len(COLOURS)], 2))
        parts.append(mark(number, LEFT + 14, y - 4))
        parts.append(text(LEFT + 36, y, name))
    return parts


def picture(title, described, panels):
    rows = math.ceil(len(panels) / PER_ROW)
    width, height = WIDTH * PER_ROW, HEAD + HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        text(20, 30, title, 18, more=' font-weight="bold"'),
        text(20, 49, described, 11, colour=FAINT),
    ]
    for number, panel in enumerate(panels):
        x, y = WIDTH * (number % PER_ROW), HEAD + HEIGHT * (number // PER_ROW)
        parts += [f'<g transform="translate({x} {y})">', *draw_panel(panel), "</g>"]
    return "\n".join(parts + ["</svg>", ""])
