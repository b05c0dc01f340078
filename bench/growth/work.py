"""A work directory that is gone at the end, with whatever still lives or is mounted in it."""

import os
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from .process import run, say

PATIENCE_SECONDS = 20


@contextmanager
def workplace(settings):
    work = Path(tempfile.mkdtemp(prefix="holdfast-grow.", dir=settings.place))
    try:
        yield work
    finally:
        sweep(work, settings.binary)


def sweep(work, binary):
    """What a cluster that could not be taken down in good order has left: mounts, processes, files."""
    for mount in mounts_below(work):
        say(f"still mounted: {mount}")
        run(["umount", "-l", mount])
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = processes_of(work, binary)
        for pid in left:
            say(f"still running: {pid}")
            os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while processes_of(work, binary) and time.monotonic() < deadline:
            time.sleep(0.05)
    shutil.rmtree(work)


def mounts_below(work):
    with open("/proc/self/mounts") as lines:
        places = [line.split()[1] for line in lines]
    return [place for place in reversed(places) if place.startswith(f"{work}/")]


def processes_of(work, binary):
    """Processes of our program that were started for this directory, whose name nobody else's has."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == os.fsencode(binary) and any(os.fsencode(work) in word for word in words):
            found.append(int(entry.name))
    return found
