"""Against time: one file, written over at random for ten minutes.

What must not grow with it: the lists of extents, of which every write makes more, the memory of each process, and what the
stores keep of what nobody refers to any more.
"""

from . import fio
from .cluster import Cluster, allocated_mib, pid_of, resident_mib

DEPTH = 16


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        job = [(cluster.mount(), "file")]
        fio.write_files(job, settings.mib)
        for minute in settings.minutes:
            wrote = fio.random_writes_for(job, settings.mib, settings.minute_seconds, DEPTH)
            results.add(minute, "random write, direct, drained", wrote["op/s"], "op/s")
            measure_size(cluster, minute, results)
        read = fio.read_files([(cluster.fresh_mount(), "file")], settings.mib)
        results.add(settings.minutes[-1], "sequential read afterwards, cold", read["MiB/s"], "MiB/s")


def measure_size(cluster, minute, results):
    leader, _ = cluster.metas()
    results.add(minute, "memory, leading metadata server", resident_mib(pid_of(leader)), "MiB")
    results.add(minute, "memory, client", resident_mib(cluster.pids("mount")[0]), "MiB")
    results.add(minute, "memory, a store", resident_mib(cluster.pids("store")[0]), "MiB")
    stores = sum(allocated_mib(place / "disk") for place in cluster.directory.glob("store-*"))
    results.add(minute, "disk, all stores", stores, "MiB")
