"""The command line: which axes, in which order, and that everything is undone."""

import os
import sys
import time

from . import costs, depth, inodes, clients, directory, overwrite, stores
from . import page, plot
from .process import Failed, die_on_signals, say
from .results import Results
from .settings import Settings
from .work import workplace

AXES = {
    "directory": directory.measure,
    "inodes": inodes.measure,
    "clients": clients.measure,
    "stores": stores.measure,
    "depth": depth.measure,
    "overwrite": overwrite.measure,
    "costs": costs.measure,
}


def main(wanted):
    settings = Settings.of_environment()
    unknown = [name for name in wanted if name not in AXES and name != "plot"]
    if unknown:
        raise Failed(f"no axis {unknown[0]}; there are {', '.join(AXES)}, and plot")
    axes = [name for name in wanted if name != "plot"] if wanted else list(AXES)
    if axes:
        settings.check()
        measure(axes, settings)
    if "plot" in wanted or not wanted:
        draw(settings)


def measure(axes, settings):
    for name in axes:
        say(f"--- {name}")
        start = time.monotonic()
        results = Results(name)
        # A work directory for each axis: what one leaves on the disk does not slow the next.
        with workplace(settings) as work:
            AXES[name](work, settings, results)
        results.keep(settings.results, settings.described())
        say(f"{name} took {time.monotonic() - start:.0f} s")


def draw(settings):
    plot.draw_all(settings.results, settings.pictures)
    if settings.page:
        page.fill_in(settings.results, settings.page)


if __name__ == "__main__":
    die_on_signals()
    try:
        main(sys.argv[1:])
    except (Failed, OSError) as problem:
        sys.exit(f"bench/grow: {problem}")
    except KeyboardInterrupt:
        # Not by an exit that waits for anything: everything is undone already.
        os._exit(130)
