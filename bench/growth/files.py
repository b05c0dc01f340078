"""Loads on names: make, look at, list. Files are empty: what is measured is names and inodes."""

import os
import random
import time
from pathlib import Path

PER_DIRECTORY = 1_000
BATCH = 1_000


def flat(number):
    return f"f{number:07d}"


def spread(number):
    return f"d{number // PER_DIRECTORY:04d}/f{number:07d}"


def make(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def sync_directory(path):
    """Everything done through the mount before is on the disks of the servers then."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Grower:
    """Makes files up to one number after the other, as long as there is time."""

    def __init__(self, base, name, seconds):
        self.base, self.name = Path(base), name
        self.seconds = seconds
        self.have = 0

    def grow(self, want):
        """Makes files until there are `want`, and they are durable: files/s, and files/s of the slowest batch."""
        first, slowest = self.have, float("inf")
        start = time.monotonic()
        while self.have < want and self.seconds > time.monotonic() - start:
            slowest = min(slowest, self.batch(want))
        sync_directory(self.base)
        took = time.monotonic() - start
        self.seconds -= took
        return (self.have - first) / took, slowest

    def batch(self, want):
        end = min(self.have + BATCH, want)
        start = time.monotonic()
        if self.name is spread:
            (self.base / spread(self.have)).parent.mkdir(exist_ok=True)
        for number in range(self.have, end):
            make(f"{self.base}/{self.name(number)}")
        made, self.have = end - self.have, end
        return made / (time.monotonic() - start)

    def steps(self, wanted):
        """For each size that is reached: what `grow` says. The last may be smaller than was wanted."""
        for want in wanted:
            if self.seconds > 0:
                yield self.grow(want)


def pick(base, count, sample, name):
    chosen = random.Random(count).sample(range(count), min(sample, count))
    return [f"{base}/{name(number)}" for number in chosen]


def look_at(paths):
    """Looked at per second."""
    # The kernel goes by what it was told for a tenth of a second. Not asked for here: Holdfast is.
    time.sleep(0.2)
    start = time.monotonic()
    for path in paths:
        os.stat(path)
    return len(paths) / (time.monotonic() - start)


def list_all(base):
    """Entries per second, and how many there are."""
    start = time.monotonic()
    with os.scandir(base) as entries:
        count = sum(1 for _ in entries)
    return count / (time.monotonic() - start), count


def make_for(base, prefix, seconds):
    """Makes files for a time, until they are durable: how many."""
    count = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        make(f"{base}/{prefix}{count:07d}")
        count += 1
    sync_directory(base)
    return count
