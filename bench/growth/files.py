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


def grow(base, first, end, name):
    """Makes files first to end, until they are durable: files/s, and files/s of the slowest batch."""
    slowest = 0.0
    start = before = time.monotonic()
    for batch in range(first, end, BATCH):
        if name is spread:
            (Path(base) / spread(batch)).parent.mkdir(exist_ok=True)
        for number in range(batch, min(batch + BATCH, end)):
            make(f"{base}/{name(number)}")
        now = time.monotonic()
        slowest = max(slowest, (now - before) / (min(batch + BATCH, end) - batch))
        before = now
    sync_directory(base)
    return (end - first) / (time.monotonic() - start), 1 / slowest


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
