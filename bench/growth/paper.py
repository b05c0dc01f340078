"""What clusters of 3, 30 and 300 hosts deliver on paper, from what an operation costs (`costs`).

For each load: every part that has to do something for it, how much of that part there is, and what one operation takes
of it. The part with the least is what stops it. bench/GROWTH.md says the same in words and formulas.
"""

import random
from dataclasses import dataclass

HOSTS = (3, 30, 300)
COPIES = 3
# What chunks are placed by (types/digest.rs): each slot belongs to three stores.
SLOTS = 1_024
MILLION = 1e6


@dataclass
class Host:
    """What we take a host to be. Its processors are taken to be like those the costs were measured on."""

    processors: float = 16
    # Of a line of 25 Gbit/s, each way.
    line: float = 2_900
    # MiB/s of all its disks.
    disk_write: float = 1_000
    disk_read: float = 2_000


def table(costs):
    cost = {name: points[0][1] for name, points in costs.items()}
    rows = ["| load | unit | " + " | ".join(f"{n} hosts | stopped by" for n in HOSTS) + " |"]
    rows.append("|---|---|" + "---:|---|" * len(HOSTS))
    for name, unit, limits in loads(cost, Host()):
        cells = []
        for hosts in HOSTS:
            value, part = least(limits(hosts))
            # A cost too small to be seen is no limit that we know of.
            cells.append("not found | " if value == float("inf") else f"{value:,.0f} | {part}")
        rows.append(f"| {name} | {unit} | " + " | ".join(cells) + " |")
    each = idle_mount(cost)
    shares = " | ".join(f"{hosts * each / MILLION:.0%} |" for hosts in HOSTS)
    even = " | ".join(f"{evenness(hosts):.0%} | the fullest store" for hosts in HOSTS)
    rows.append(f"| space that can be used, equal disks | of all of it | {even} |")
    rows.append(f"| heartbeats of a mount on each host | of a processor of the leader | {shares} |")
    return "\n".join(rows) + "\n"


def idle_mount(cost):
    """Microseconds in a second that one more mount takes of the leader."""
    more = cost["idle, 8 mounts: leader"] - cost["idle, one mount: leader"]
    return max(0, more) / (8 - 1)


def evenness(hosts):
    """A store's mean share of the slots over the largest one: how far the disks fill until one of them is full."""
    draw = random.Random(1)
    owned = [0] * hosts
    for _ in range(SLOTS):
        for store in draw.sample(range(hosts), COPIES):
            owned[store] += 1
    return SLOTS * COPIES / hosts / max(owned)


def least(limits):
    return min((value, part) for part, value in limits.items())


def loads(cost, host):
    """(name, unit, hosts -> {part: limit})"""
    for name in ("create", "look-up, cold", "write + fdatasync, 32 writers"):
        for how, processors in (("leader on one processor", 1), ("leader on all of its", host.processors)):
            yield f"{name}, {how}", "/s", names(cost, host, name, processors)
    yield "look-up, warm", "/s", names(cost, host, "look-up, warm", 1)
    yield "4 KiB random read", "/s", reads(cost, host, "random read", 256)
    yield "sequential read", "MiB/s", reads(cost, host, "sequential read", 1)
    yield "sequential write", "MiB/s", sequential_write(cost, host)


def per_second(processors, microseconds):
    """How often a cost fits into a second; a cost that was not seen is no limit."""
    return processors * MILLION / microseconds if microseconds > 0 else float("inf")


def names(cost, host, name, leader):
    """Each host runs one program that does nothing else, so one processor of it; there is one leader."""
    return lambda hosts: {
        "clients": hosts * per_second(1, cost[f"{name}: client"]),
        "the leader": per_second(leader, cost[f"{name}: leader"]),
    }


def processors_of_data(cost, host, name, hosts):
    """Client and store share a host; each host does as much of either as any other."""
    together = cost[f"{name}: client"] + cost[f"{name}: stores"]
    return hosts * per_second(host.processors, together)


def near(hosts):
    """The part of all chunks that has a copy on the host that reads it, which takes it from the disk itself."""
    return min(1, COPIES / hosts)


def read_cost(cost, name, who, hosts):
    """What a read costs on average: of copies on the host, and of others, which come through a store."""
    share = near(hosts)
    return share * cost[f"{name}: {who}"] + (1 - share) * cost[f"{name}, through a store: {who}"]


def reads(cost, host, name, per_mib):
    return lambda hosts: {
        "processors": hosts
        * per_second(host.processors, read_cost(cost, name, "client", hosts) + read_cost(cost, name, "stores", hosts)),
        "the leader": per_second(1, read_cost(cost, name, "leader", hosts)),
        "lines": hosts * host.line * per_mib / (1 - near(hosts)) if near(hosts) < 1 else float("inf"),
        "disks": evenness(hosts) * hosts * host.disk_read * per_mib,
    }


def sequential_write(cost, host):
    """The client sends every copy itself."""
    return lambda hosts: {
        "processors": processors_of_data(cost, host, "sequential write", hosts),
        "the leader": per_second(1, cost["sequential write: leader"]),
        "lines": hosts * host.line / COPIES,
        "disks": evenness(hosts) * hosts * host.disk_write / COPIES,
    }
