"""What one operation costs each process, with one client: the inputs of the calculation on paper.

Processor time comes from the kernel, so it holds on a busy machine too. What it is multiplied with does not matter
here: a cost is time over operations. Each load is large enough for the kernel's ticks of 10 ms not to matter.
"""

import time
from pathlib import Path

from . import fio
from .cluster import Cluster, pid_of, processor_seconds
from .files import flat, grow, look_at, pick

FILES = 20_000
FILES_QUICK = 2_000
IDLE_MOUNTS = 8


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        meter = Meter(cluster, results)
        of_names(cluster, settings, meter)
        of_data(cluster, settings, meter)
        of_waiting(cluster, settings, results)


class Meter:
    """Notes what each role's processes took for a load; for stores and network all of them together."""

    def __init__(self, cluster, results):
        self.cluster = cluster
        self.results = results

    def pids(self):
        leader, followers = self.cluster.metas()
        return {
            "leader": [pid_of(leader)],
            "follower": [pid_of(followers[0])],
            "stores": self.cluster.pids("store"),
            "client": self.cluster.pids("mount"),
        }

    def note(self, name, unit, load):
        """`load` returns for how many operations, or MiB, the costs were."""
        pids = self.pids()
        before = {role: sum(map(processor_seconds, list_)) for role, list_ in pids.items()}
        sent = loopback_bytes()
        count = load()
        for role, list_ in pids.items():
            took = sum(map(processor_seconds, list_)) - before[role]
            self.results.add(1, f"{name}: {role}", took / count * 1e6, f"us/{unit}")
        self.results.add(1, f"{name}: network", (loopback_bytes() - sent) / count, f"B/{unit}")


def of_names(cluster, settings, meter):
    base = cluster.fresh_mount() / "names"
    base.mkdir()
    count = FILES_QUICK if settings.quick else FILES
    meter.note("create", "op", lambda: timed(count, grow, base, 0, count, flat))
    cluster.fresh_mount()
    names = pick(base, count, settings.sample, flat)
    meter.note("look-up, cold", "op", lambda: timed(len(names), look_at, names))
    meter.note("look-up, warm", "op", lambda: timed(len(names), look_at, names))


def timed(count, load, *arguments):
    load(*arguments)
    return count


def of_data(cluster, settings, meter):
    job = [(cluster.mounted[0], "large")]
    mib, seconds = settings.mib, settings.seconds
    meter.note("sequential write", "MiB", lambda: timed(mib, fio.write_files, job, mib))
    cluster.fresh_mount()
    meter.note("sequential read", "MiB", lambda: timed(mib, fio.read_files, job, mib))
    cluster.fresh_mount()
    meter.note("random read", "op", lambda: fio.random_reads(job, mib, seconds, depth=16)["operations"])
    cluster.fresh_mount()
    meter.note("random write", "op", lambda: fio.random_writes(job, mib, seconds, depth=16)["operations"])
    one = [(cluster.mounted[0], "synced")]
    fio.write_files(one, 1)
    meter.note("write + fdatasync", "op", lambda: fio.synced_writes(one, 1, seconds)["operations"])


def of_waiting(cluster, settings, results):
    """What mounts cost the leader that do nothing."""
    leader = pid_of(cluster.metas()[0])
    few = idle_seconds(leader, settings.seconds)
    for number in range(2, IDLE_MOUNTS + 1):
        cluster.mount(number)
    many = idle_seconds(leader, settings.seconds)
    results.add(1, "idle, one mount: leader", few * 1e6, "us/s")
    results.add(1, f"idle, {IDLE_MOUNTS} mounts: leader", many * 1e6, "us/s")


def idle_seconds(pid, seconds):
    """Processor time per second, from the clock of each thread: ticks are too coarse for this."""
    time.sleep(1)
    before, start = thread_seconds(pid), time.monotonic()
    time.sleep(seconds)
    after = thread_seconds(pid)
    return sum(after[tid] - before[tid] for tid in after if tid in before) / (time.monotonic() - start)


def thread_seconds(pid):
    took = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            took[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e9
        except FileNotFoundError:
            pass
    return took


def loopback_bytes():
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "lo":
            return int(fields.split()[0])
    return 0
