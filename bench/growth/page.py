"""Fills in the figures of bench/GROWTH.md: a table for each axis, and the calculation on paper.

What stands between `<!-- figures: NAME -->` and `<!-- end -->` is written here; everything else is written by people.
"""

import re

from . import paper
from .process import say
from .results import load


def fill_in(results, page):
    points, units, described = load(results)
    text = page.read_text()
    for axis, series in points.items():
        text = replace(text, axis, table(series, units[axis], described.get(axis, "")))
    if any("through a store" in name for name in points.get("costs", ())):
        text = replace(text, "paper", paper.table(points["costs"]))
    page.write_text(text)
    say(f"filled in: {page}")


def replace(text, name, figures):
    between = re.compile(f"(<!-- figures: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not between.search(text):
        say(f"no place for {name} in the page")
    return between.sub(lambda found: found[1] + "\n" + figures + "\n" + found[2], text)


def table(series, units, described):
    """A row for each series, a column for each place on the axis."""
    if all(len(points) == 1 for points in series.values()):
        rows = costs_rows(series)
    else:
        rows = axis_rows(series, units)
    return f"{described}\n\n" + "\n".join(rows) + "\n"


def axis_rows(series, units):
    xs = sorted({x for points in series.values() for x, _ in points})
    rows = ["| | unit | " + " | ".join(f"{x:,.0f}" for x in xs) + " |", "|---|---|" + "---:|" * len(xs)]
    for name, points in series.items():
        told = dict(points)
        rows.append(f"| {name} | {units[name]} | " + " | ".join(figure(told.get(x)) for x in xs) + " |")
    return rows


def costs_rows(series):
    """Costs are named `load: who`: a row for each load."""
    who, loads = [], {}
    for name, ((_, value),) in series.items():
        load_name, _, role = name.rpartition(": ")
        loads.setdefault(load_name, {})[role] = value
        if role not in who:
            who.append(role)
    rows = ["| | " + " | ".join(who) + " |", "|---|" + "---:|" * len(who)]
    for name, values in loads.items():
        rows.append(f"| {name} | " + " | ".join(figure(values.get(role)) for role in who) + " |")
    return rows


def figure(value):
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
