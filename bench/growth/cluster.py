"""A cluster of deploy/local/cluster: up, mounts, who leads, and what its processes take."""

import json
import os
from pathlib import Path

from .process import Failed, run, say
from .settings import ROOT

SCRIPT = ROOT / "deploy/local/cluster"
VOLUME = "grow"
COPIES = 3


class Cluster:
    def __init__(self, work, settings, stores=3):
        self.directory = work / "cluster"
        self.work = work
        self.settings = settings
        self.stores = stores
        # Copies go to different stores: with fewer than three there are as many copies as fit.
        self.copies = min(COPIES, stores)
        self.mounted = []

    def __enter__(self):
        try:
            self.script("up")
            self.admin("volume", "create", VOLUME, "--replicas", self.copies)
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.complain_of_twins()
        self.down()

    def down(self):
        if not (self.directory / "admin.credential").exists():
            return
        try:
            self.script("down")
        except Failed as problem:
            # The work directory's sweep does the rest.
            say(f"down: {problem}")

    def script(self, command, *words, **environment):
        return run(
            [SCRIPT, command, self.directory, *words],
            HOLDFAST_BIN=self.settings.binary,
            HOLDFAST_LOCAL_STORES=self.stores,
            HOLDFAST_LOCAL_METAS=3,
            **environment,
        )

    def admin(self, *words):
        return run([self.settings.binary, *words, "--credential", self.directory / "admin.credential"])

    def status(self):
        return json.loads(self.admin("status", "--json"))

    def complain_of_twins(self):
        """Equal chunks are stored once. If there were any, the figures flatter."""
        hits = self.status()["dedup_hits"]
        if hits:
            say(f"note: {hits} chunks were equal to others; the figures of this axis may flatter")

    # --- mounts --------------------------------------------------------------------------------------------------

    def mount(self, number=1, near=True):
        """`near`: it may read the disks of stores, which are on its host. Else it is as if they were on others."""
        place = self.work / f"mnt-{number}"
        place.mkdir(exist_ok=True)
        self.script("mount", VOLUME, place, HOLDFAST_MOUNT_SHORT_CIRCUIT="true" if near else "false")
        self.mounted.append(place)
        return place

    def unmount_all(self):
        while self.mounted:
            self.script("umount", self.mounted.pop())

    def fresh_mounts(self, count=1, near=True):
        """Mounts that know nothing, above servers whose files are not in the page cache."""
        self.unmount_all()
        # A look does without: it would slow down whoever else measures something on this machine.
        if not self.settings.quick:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3")
        return [self.mount(number, near) for number in range(1, count + 1)]

    def fresh_mount(self, near=True):
        return self.fresh_mounts(near=near)[0]

    # --- processes -----------------------------------------------------------------------------------------------

    def pids(self, role):
        places = sorted(self.directory.glob(f"{role}-*"))
        return [int((place / "pid").read_text()) for place in places]

    def metas(self):
        """Places below the cluster directory: the leader's, and those of the others."""
        status = self.status()
        address = next(meta["address"] for meta in status["metas"] if meta["id"] == status["leader"])
        places = sorted(self.directory.glob("meta-*"))
        leader = next(place for place in places if (place / "listen").read_text().strip() == address)
        return leader, [place for place in places if place != leader]


def pid_of(place):
    return int((place / "pid").read_text())


def resident_mib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise Failed(f"process {pid} has ended")


def processor_seconds(pid):
    """User and system time so far, of all threads, the ended ones too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def written_bytes(pid):
    """Bytes of pages that it has made dirty so far: what it had written to a disk, sooner or later."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def allocated_mib(directory):
    """What a directory takes on the disk. Files may go while we look: segments of the log do."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total / (1 << 20)
