"""Against the number of inodes in the volume, a thousand files to a directory."""

from .cluster import Cluster, allocated_mib, pid_of, resident_mib
from .files import Grower, look_at, pick, spread


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        base = cluster.mount() / "many"
        base.mkdir()
        grower = Grower(base, spread, settings.grow_seconds)
        for made, slowest in grower.steps(settings.files):
            have = grower.have
            results.add(have, "create", made, "files/s")
            results.add(have, "create, slowest 1,000", slowest, "files/s")
            measure_size(cluster, have, results)
            cluster.fresh_mount()
            names = pick(base, have, settings.sample, spread)
            results.add(have, "stat, cold", look_at(names), "names/s")
            results.add(have, "stat, warm", look_at(names), "names/s")


def measure_size(cluster, have, results):
    """While the mount that made them is still there, with what it remembers and holds leases on."""
    leader, followers = cluster.metas()
    results.add(have, "memory, leading metadata server", resident_mib(pid_of(leader)), "MiB")
    results.add(have, "memory, a follower", resident_mib(pid_of(followers[0])), "MiB")
    results.add(have, "memory, client", resident_mib(cluster.pids("mount")[0]), "MiB")
    data = leader / "data"
    results.add(have, "disk, metadata server", allocated_mib(data), "MiB")
    results.add(have, "disk, its index alone", allocated_mib(data / "index"), "MiB")
