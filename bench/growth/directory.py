"""Against the number of files in one directory."""

from .cluster import Cluster
from .files import Grower, flat, list_all, look_at, pick
from .process import Failed


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        base = cluster.mount() / "one"
        base.mkdir()
        grower = Grower(base, flat, settings.grow_seconds)
        for made, slowest in grower.steps(settings.files):
            have = grower.have
            results.add(have, "create", made, "files/s")
            results.add(have, "create, slowest 1,000", slowest, "files/s")
            # Each on a mount that knows nothing: a listing tells the names that are looked up next.
            cluster.fresh_mount()
            names = pick(base, have, settings.sample, flat)
            results.add(have, "look-up, cold", look_at(names), "names/s")
            results.add(have, "look-up, warm", look_at(names), "names/s")
            cluster.fresh_mount()
            listed, count = list_all(base)
            if count != have:
                raise Failed(f"{have} files were made and {count} listed")
            results.add(have, "listing", listed, "entries/s")
