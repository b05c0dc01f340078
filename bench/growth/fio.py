"""Loads on data, by fio.

No two bytes alike (--refill_buffers, and seeds that differ from run to run): equal chunks are stored once, and without
it fio writes the same buffer again and again, which would cost nothing to store. Nothing is read twice either: a job
ends after one pass over its file, because the second would come from the client's memory.
"""

import json

from .process import Failed, run

COMMON = ["--output-format=json", "--refill_buffers", "--randrepeat=0", "--thread"]
DEEP = ["--direct=1", "--ioengine=libaio"]


def fio(jobs, *options):
    """Runs one job for each (directory, file name), all at once. Operations and MiB per second, and their number."""
    command = ["fio", *COMMON, *options]
    for number, (directory, name) in enumerate(jobs):
        command += [f"--name=j{number}", f"--directory={directory}", f"--filename={name}"]
    out = run(command)
    told = json.loads(out[out.index("{"):])["jobs"]
    return rates(told)


def rates(told):
    """Sums: what was done in all, over the time of the slowest."""
    sides = [job[side] for job in told for side in ("read", "write") if job[side]["total_ios"]]
    if any(job["error"] for job in told) or not sides:
        raise Failed(f"fio: error {[job['error'] for job in told]}")
    seconds = max(max(side["runtime"] for side in sides), 1) / 1000
    operations = sum(side["total_ios"] for side in sides)
    mib = sum(side["io_bytes"] for side in sides) / (1 << 20)
    return {"op/s": operations / seconds, "MiB/s": mib / seconds, "operations": operations, "seconds": seconds}


def write_files(jobs, mib):
    """One after the other in 1 MiB calls, and an fsync of each file at the end, which counts."""
    return fio(jobs, "--rw=write", "--bs=1M", f"--size={mib}M", "--ioengine=psync", "--end_fsync=1")


def read_files(jobs, mib):
    return fio(jobs, "--rw=read", "--bs=1M", f"--size={mib}M", "--ioengine=psync")


def random_reads(jobs, mib, seconds, depth):
    return fio(jobs, "--rw=randread", "--bs=4k", f"--size={mib}M", f"--runtime={seconds}", f"--iodepth={depth}", *DEEP)


def random_writes(jobs, mib, seconds, depth):
    """With an fsync at the end, which counts: what the client holds back is not left out."""
    size = [f"--size={mib}M", f"--runtime={seconds}", f"--iodepth={depth}"]
    return fio(jobs, "--rw=randwrite", "--bs=4k", "--end_fsync=1", *size, *DEEP)


def random_writes_for(jobs, mib, seconds, depth):
    """The same, over and over for as long as it says."""
    size = [f"--size={mib}M", f"--runtime={seconds}", "--time_based", f"--iodepth={depth}"]
    return fio(jobs, "--rw=randwrite", "--bs=4k", "--end_fsync=1", *size, *DEEP)


def synced_writes(jobs, mib, seconds):
    size = [f"--size={mib}M", f"--runtime={seconds}", "--time_based"]
    return fio(jobs, "--rw=randwrite", "--bs=4k", "--fdatasync=1", "--ioengine=psync", *size)
