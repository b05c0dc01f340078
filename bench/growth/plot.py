"""Which curves go into which picture."""

from .process import Failed, say
from .results import load
from .svg import Panel, picture

FILES = "files in the directory"
INODES = "files in the volume"
CLIENTS = "mounts"
STORES = "stores"
DEPTH = "requests under way"
WRITERS = "writers at once"
MINUTES = "minutes"

# axis: (title, [(panel's title, x, x is a power series, series)])
PICTURES = {
    "directory": (
        "Files in one directory",
        [
            ("Create", FILES, True, ["create", "create, slowest 1,000"]),
            ("Look-up", FILES, True, ["look-up, cold", "look-up, warm"]),
            ("Listing, cold", FILES, True, ["listing"]),
        ],
    ),
    "inodes": (
        "Inodes in a volume, 1,000 files to a directory",
        [
            ("Create", INODES, True, ["create", "create, slowest 1,000"]),
            ("Stat", INODES, True, ["stat, cold", "stat, warm"]),
            (
                "Resident memory",
                INODES,
                True,
                ["memory, leading metadata server", "memory, a follower", "memory, client"],
            ),
            ("Disk of the leading metadata server", INODES, True, ["disk, metadata server", "disk, its index alone"]),
        ],
    ),
    "clients": (
        "Mounts of one volume, all of them together",
        [
            ("Create", CLIENTS, True, ["create, own directories", "create, one directory"]),
            ("4 KiB random read, depth 1 each", CLIENTS, True, ["random read, own files", "random read, one file"]),
            (
                "Sequential write, drained",
                CLIENTS,
                True,
                ["sequential write, own directories", "sequential write, one directory"],
            ),
        ],
    ),
    "stores": (
        "Stores, all on one disk",
        [
            ("Sequential, one mount", STORES, False, ["sequential write", "sequential read"]),
            ("4 KiB random read, one mount", STORES, False, ["random read, depth 16"]),
            ("Copies of a chunk", STORES, False, ["copies"]),
        ],
    ),
    "depth": (
        "Requests under way at once",
        [
            ("4 KiB, O_DIRECT, one file", DEPTH, True, ["random read, direct", "random write, direct, drained"]),
            ("4 KiB, fdatasync after each", WRITERS, True, ["write + fdatasync, that many writers"]),
        ],
    ),
    "overwrite": (
        "One file, written over at random",
        [
            ("4 KiB, O_DIRECT, depth 16", MINUTES, False, ["random write, direct, drained"]),
            (
                "Resident memory",
                MINUTES,
                False,
                ["memory, leading metadata server", "memory, client", "memory, a store"],
            ),
            ("Disk of all stores", MINUTES, False, ["disk, all stores"]),
        ],
    ),
}


def draw_all(results, pictures):
    if not results.exists():
        raise Failed(f"{results} is not there: run an axis first")
    points, units, described = load(results)
    pictures.mkdir(exist_ok=True)
    for axis, (title, parts) in PICTURES.items():
        if axis not in points:
            say(f"no picture of {axis}: it has not been run")
            continue
        panels = [panel(points[axis], units[axis], *part) for part in parts]
        path = pictures / f"{axis}.svg"
        path.write_text(picture(title, described.get(axis, ""), panels))
        say(f"drawn: {path}")


def panel(points, units, title, x, powers, names):
    series = {name: sorted(points[name]) for name in names if name in points}
    unit = next((units[name] for name in series), "")
    return Panel(title, x, unit, powers, series)
