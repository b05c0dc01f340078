"""Against the number of inodes in the volume, a thousand files to a directory."""

from .cluster import Cluster, allocated_mib, pid_of, resident_mib
from .files import grow, look_at, pick, spread


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        base = cluster.mount() / "many"
        base.mkdir()
        have = 0
        for want in settings.files:
            made, slowest = grow(base, have, want, spread)
            have = want
            results.add(want, "create", made, "files/s")
            results.add(want, "create, slowest 1,000", slowest, "files/s")
            measure_size(cluster, want, results)
            cluster.fresh_mount()
            names = pick(base, have, settings.sample, spread)
            results.add(want, "stat, cold", look_at(names), "names/s")
            results.add(want, "stat, warm", look_at(names), "names/s")


def measure_size(cluster, want, results):
    """While the mount that made them is still there, with what it remembers and holds leases on."""
    leader, followers = cluster.metas()
    results.add(want, "memory, leading metadata server", resident_mib(pid_of(leader)), "MiB")
    results.add(want, "memory, a follower", resident_mib(pid_of(followers[0])), "MiB")
    results.add(want, "memory, client", resident_mib(cluster.pids("mount")[0]), "MiB")
    data = leader / "data"
    results.add(want, "disk, metadata server", allocated_mib(data), "MiB")
    results.add(want, "disk, its index alone", allocated_mib(data / "index"), "MiB")
