"""Against the number of requests that are under way at once: of one program, and of many that wait for the disk."""

from . import fio
from .cluster import Cluster

# Of each writer: few blocks of the file, so that what becomes of one that is written to again and again shows.
SYNCED_MIB = 4


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        mount = cluster.mount()
        fio.write_files([(mount, "read")], settings.mib)
        for depth in settings.depths:
            mount = cluster.fresh_mount()
            read = fio.random_reads([(mount, "read")], settings.mib, settings.seconds, depth)
            results.add(depth, "random read, direct", read["op/s"], "op/s")
        for depth in settings.depths:
            measure_writes(cluster, settings, results, depth)
        for writers in settings.depths:
            measure_synced(cluster, settings, results, writers)


def measure_writes(cluster, settings, results, depth):
    """Into a file that is there already, by a mount that does not know it."""
    job = [(cluster.mounted[0], f"write-{depth}")]
    fio.write_files(job, settings.mib)
    cluster.fresh_mount()
    wrote = fio.random_writes(job, settings.mib, settings.seconds, depth)
    results.add(depth, "random write, direct, drained", wrote["op/s"], "op/s")
    (job[0][0] / job[0][1]).unlink()


def measure_synced(cluster, settings, results, writers):
    jobs = [(cluster.mounted[0], f"synced-{number}") for number in range(writers)]
    fio.write_files(jobs, SYNCED_MIB)
    wrote = fio.synced_writes(jobs, SYNCED_MIB, settings.seconds)
    results.add(writers, "write + fdatasync, that many writers", wrote["op/s"], "op/s")
