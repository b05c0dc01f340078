"""What one operation costs each process, with one client: the inputs of the calculation on paper.

A cost is what the kernel says that a process took, over operations: it does not matter how long that was. Each load
is large enough for the kernel's ticks of 10 ms not to matter (a quick look's are not). What the processes take when
nothing is done, heartbeats most of all, is measured first and left out.
"""

import time
from functools import partial
from pathlib import Path

from . import fio
from .cluster import Cluster, pid_of, processor_seconds, written_bytes
from .depth import SYNCED_MIB
from .files import Grower, flat, look_at, pick

FILES = 20_000
FILES_QUICK = 2_000
IDLE_MOUNTS = 8
WRITERS = 32
# The stores are at rest when they write less than this in a second; not waited for longer than this.
QUIET_BYTES = 256 << 10
SETTLE_SECONDS = 60


def measure(work, settings, results):
    with Cluster(work, settings) as cluster:
        cluster.mount()
        meter = Meter(cluster, settings, results)
        of_names(cluster, settings, meter)
        of_data(cluster, settings, meter)
        of_waiting(cluster, settings, results, meter.idle["leader"])


class Meter:
    """Notes what a load took: processor time, bytes for the disk, bytes over the network.

    Of the stores it is the sum of all of them, and of the network everything that anybody sent.
    """

    def __init__(self, cluster, settings, results):
        self.cluster = cluster
        self.results = results
        self.idle = idle(self.pids(), settings.seconds)

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
        self.settle(pids)
        before, sent, start = self.taken(pids), loopback_bytes(), time.monotonic()
        count = load()
        after, seconds = self.taken(pids), time.monotonic() - start
        for role in pids:
            took = max(0.0, after[role][0] - before[role][0] - self.idle[role] * seconds)
            self.results.add(1, f"{name}: {role}", took / count * 1e6, f"us/{unit}")
        for role in ("leader", "stores"):
            self.results.add(1, f"{name}: {role}, disk", (after[role][1] - before[role][1]) / count, f"B/{unit}")
        self.results.add(1, f"{name}: network", (loopback_bytes() - sent) / count, f"B/{unit}")

    def settle(self, pids):
        """Until the stores write no more: what the last load left to be done is not this one's."""
        for _ in range(SETTLE_SECONDS):
            before = self.taken(pids)["stores"][1]
            time.sleep(1)
            if self.taken(pids)["stores"][1] - before < QUIET_BYTES:
                return

    def taken(self, pids):
        return {role: (sum(map(processor_seconds, of)), sum(map(written_bytes, of))) for role, of in pids.items()}


def of_names(cluster, settings, meter):
    base = cluster.fresh_mount() / "names"
    base.mkdir()
    count = FILES_QUICK if settings.quick else FILES
    meter.note("create", "op", lambda: timed(count, Grower(base, flat, settings.grow_seconds).grow, count))
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
    for near, how in ((True, ""), (False, ", through a store")):
        cluster.fresh_mount(near)
        meter.note(f"sequential read{how}", "MiB", lambda: timed(mib, fio.read_files, job, mib))
        cluster.fresh_mount(near)
        meter.note(f"random read{how}", "op", lambda: fio.random_reads(job, mib, seconds, depth=16)["operations"])
    cluster.fresh_mount()
    meter.note("random write", "op", lambda: fio.random_writes(job, mib, seconds, depth=16)["operations"])
    synced = [(cluster.mounted[0], f"synced-{number}") for number in range(WRITERS)]
    fio.write_files(synced, SYNCED_MIB)
    for name, jobs in (("one writer", synced[:1]), (f"{WRITERS} writers", synced)):
        load = partial(fio.synced_writes, jobs, SYNCED_MIB, seconds)
        meter.note(f"write + fdatasync, {name}", "op", lambda: load()["operations"])


def of_waiting(cluster, settings, results, few):
    """What mounts cost the leader that do nothing."""
    cluster.unmount_all()
    for number in range(1, IDLE_MOUNTS + 1):
        cluster.mount(number)
    many = idle({"leader": [pid_of(cluster.metas()[0])]}, settings.seconds)["leader"]
    results.add(1, "idle, one mount: leader", few * 1e6, "us/s")
    results.add(1, f"idle, {IDLE_MOUNTS} mounts: leader", many * 1e6, "us/s")


def idle(pids, seconds):
    """Processor time per second, from the clock of each thread: ticks are too coarse for this."""
    time.sleep(1)
    before, start = {role: thread_seconds(of) for role, of in pids.items()}, time.monotonic()
    time.sleep(seconds)
    after, took = {role: thread_seconds(of) for role, of in pids.items()}, time.monotonic() - start
    return {role: grown(before[role], after[role]) / took for role in pids}


def grown(before, after):
    """Threads that began or ended meanwhile are left out."""
    return sum(now - before[thread] for thread, now in after.items() if thread in before)


def thread_seconds(pids):
    took = {}
    for pid in pids:
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
