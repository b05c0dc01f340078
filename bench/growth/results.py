"""The file of results: a line for each point, and a comment for each axis that says when and where it was run.

    # directory: 26 November 2026, holdfast 0.1.0, ...
    directory<TAB>1000<TAB>create<TAB>4837.9<TAB>files/s
"""

from .process import say


class Results:
    def __init__(self, axis):
        self.axis = axis
        self.lines = []

    def add(self, x, series, value, unit):
        text = f"{value:.1f}" if value >= 10 else f"{value:.3g}"
        self.lines.append("\t".join((self.axis, str(x), series, text, unit)))
        say(f"{self.axis} {x}: {series} {text} {unit}")

    def keep(self, path, described):
        """In place of what the file said of this axis."""
        kept = []
        if path.exists():
            ours = (f"# {self.axis}:", f"{self.axis}\t")
            kept = [line for line in path.read_text().splitlines() if not line.startswith(ours)]
        fresh = path.with_suffix(".new")
        fresh.write_text("\n".join(kept + [f"# {self.axis}: {described}"] + self.lines) + "\n")
        fresh.replace(path)


def load(path):
    """{axis: {series: [(x, value)]}}, {axis: {series: unit}}, {axis: description}"""
    points, units, described = {}, {}, {}
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            axis, _, text = line[2:].partition(": ")
            described[axis] = text
            continue
        axis, x, series, value, unit = line.split("\t")
        points.setdefault(axis, {}).setdefault(series, []).append((float(x), float(value)))
        units.setdefault(axis, {})[series] = unit
    return points, units, described
