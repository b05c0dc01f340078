"""Against the number of files in one directory."""

from .cluster import Cluster
from .files import flat, grow, list_all, look_at, pick
from .process import Failed


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        base = cluster.mount() / "one"
        base.mkdir()
        have = 0
        for want in settings.files:
            made, slowest = grow(base, have, want, flat)
            have = want
            results.add(want, "create", made, "files/s")
            results.add(want, "create, slowest 1,000", slowest, "files/s")
            # Each on a mount that knows nothing: a listing tells the names that are looked up next.
            cluster.fresh_mount()
            names = pick(base, have, settings.sample, flat)
            results.add(want, "look-up, cold", look_at(names), "names/s")
            results.add(want, "look-up, warm", look_at(names), "names/s")
            cluster.fresh_mount()
            listed, count = list_all(base)
            if count != have:
                raise Failed(f"{have} files were made and {count} listed")
            results.add(want, "listing", listed, "entries/s")
