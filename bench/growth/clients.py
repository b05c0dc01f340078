"""Against the number of mounts: each in a directory of its own, and all in a shared one."""

from functools import partial

from . import fio
from .cluster import Cluster
from .files import make_for
from .together import together

READ_MIB_MAX = 64
SETTLING_SECONDS = 5


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        for count in settings.clients:
            for how, shared in (("own directories", False), ("one directory", True)):
                mounts = cluster.fresh_mounts(count)
                places = make_places(mounts, f"{count}-{how.split()[0]}", shared)
                measure_create(settings, results, count, how, places)
                measure_write(settings, results, count, how, places)
                measure_read(cluster, settings, results, count, how, places, shared)


def make_places(mounts, name, shared):
    """A directory for each mount, made through the mount that uses it; or one, seen through each of them."""
    if shared:
        (mounts[0] / name).mkdir()
        return [mount / name for mount in mounts]
    places = [mount / f"{name}-{number}" for number, mount in enumerate(mounts)]
    for place in places:
        place.mkdir()
    return places


def measure_create(settings, results, count, how, places):
    """The first files are not counted: in a directory that others look at, making one waits for up to a second until their
    kernels go by nothing that they were told of it, and so it does for each of the mounts that had looked."""
    for seconds, prefix in ((SETTLING_SECONDS if settings.seconds > 1 else 0.5, "first"), (settings.seconds, "then")):
        works = [partial(make_for, place, f"{prefix}-{n}-", seconds) for n, place in enumerate(places)]
        made = together(works)
    results.add(count, f"create, {how}", made, "files/s")


def measure_write(settings, results, count, how, places):
    """The same number of bytes in all, however many share in it."""
    jobs = [(place, f"seq-{number}") for number, place in enumerate(places)]
    wrote = fio.write_files(jobs, max(1, 2 * settings.mib // count))
    results.add(count, f"sequential write, {how}", wrote["MiB/s"], "MiB/s")


def measure_read(cluster, settings, results, count, how, places, shared):
    """Each reads a file of its own; where the directory is shared, all read the same file."""
    mib = min(READ_MIB_MAX, settings.mib)
    jobs = [(place, "rnd" if shared else f"rnd-{number}") for number, place in enumerate(places)]
    fio.write_files(jobs[:1] if shared else jobs, mib)
    cluster.fresh_mounts(count)
    read = fio.random_reads(jobs, mib, settings.seconds, depth=1)
    results.add(count, f"random read, {'one file' if shared else 'own files'}", read["op/s"], "op/s")
