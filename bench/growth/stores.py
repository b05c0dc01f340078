"""Against the number of stores. With one there is one copy, with two there are two, else three."""

from . import fio
from .cluster import Cluster

DEPTH = 16


def measure(work, settings, results):
    for count in settings.stores:
        place = work / str(count)
        place.mkdir()
        with Cluster(place, settings, stores=count) as cluster:
            measure_one(cluster, settings, results, count)


def measure_one(cluster, settings, results, count):
    job = [(cluster.fresh_mount(), "large")]
    results.add(count, "sequential write", fio.write_files(job, settings.mib)["MiB/s"], "MiB/s")
    cluster.fresh_mount()
    results.add(count, "sequential read", fio.read_files(job, settings.mib)["MiB/s"], "MiB/s")
    cluster.fresh_mount()
    read = fio.random_reads(job, settings.mib, settings.seconds, DEPTH)
    results.add(count, f"random read, depth {DEPTH}", read["op/s"], "op/s")
    results.add(count, "copies", cluster.copies, "copies")
