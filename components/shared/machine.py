"""What this machine, or the container on it, gives to a process."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_PROCESS = Path("/proc/self")


def usable_cores() -> int:
    """CPU cores that this process can keep busy: its affinity, or its container's quota if less.

    A part of a core counts as one: a process that starts fewer threads than its quota lets
    run leaves some of it unused, one that starts a thread more is held back for the rest.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    return min(cores or 1, math.ceil(quota)) if quota else cores or 1


def cpu_quota(process: Path = _PROCESS) -> float | None:
    """Cores that the process may use on average; `None` where no cgroup limits it.

    Args:
        process: Its folder in /proc.
    """
    quotas = [_quota(group) for group in _cgroups("cpu", process)]
    return min((quota for quota in quotas if quota is not None), default=None)


def free_memory() -> int | None:
    """Bytes: what the system has, or what the container's limit leaves if that is less."""
    free = [_available(), memory_rest()]
    return min((value for value in free if value is not None), default=None)


def memory_rest(process: Path = _PROCESS) -> int | None:
    """Bytes that the limits of the process's cgroups leave; `None` where there is no limit.

    The cache of files counts as free: the kernel gives it back before it refuses memory.

    Args:
        process: Its folder in /proc.
    """
    rests = [_rest(group) for group in _cgroups("memory", process)]
    return min((rest for rest in rests if rest is not None), default=None)


def _quota(group: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # v2, v1
        try:
            allowed, period = " ".join((group / name).read_text() for name in names).split()
            quota = int(allowed) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # not there, or "max": no limit
            continue
        if quota > 0:  # v1 writes -1 for no limit
            return quota
    return None


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return next(found, None)


def _rest(group: Path) -> int | None:
    names = (
        ("memory.max", "memory.current", "inactive_file"),  # v2
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # v1
    )
    for limit, usage, cached in names:
        try:
            rest = int((group / limit).read_text()) - int((group / usage).read_text())
            lines = map(str.split, (group / "memory.stat").read_text().splitlines())
            return max(rest + next(int(value) for name, value in lines if name == cached), 0)
        except (OSError, ValueError, StopIteration):  # not there, or "max": no limit
            continue
    return None


def _cgroups(controller: str, process: Path) -> Iterator[Path]:
    """Folders of the process's own cgroup and of all above it that it can see.

    Any of them may hold the limit. A container sees its own cgroup as the root of the mount.
    """
    try:
        mounts = (process / "mountinfo").read_text().splitlines()
        groups = (process / "cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for kind, root, mounted in filter(None, (_mount(line, controller) for line in mounts)):
        for own in filter(None, (_path(line, kind, controller) for line in groups)):
            seen = own.is_relative_to(root) and ".." not in own.parts
            inside = own.relative_to(root) if seen else Path()
            yield from (mounted / folder for folder in (inside, *inside.parents))


def _mount(line: str, controller: str) -> tuple[str, Path, Path] | None:
    """File system, its folder that is mounted, and where; see proc_pid_mountinfo(5)."""
    mount, _, system = (part.split() for part in line.partition(" - "))
    kind, options = system[0], system[-1].split(",")
    if kind == "cgroup2" or (kind == "cgroup" and controller in options):
        return kind, Path(mount[3]), Path(mount[4])
    return None


def _path(line: str, kind: str, controller: str) -> Path | None:
    """The cgroup's path in its hierarchy; see cgroups(7)."""
    _, controllers, path = line.split(":", 2)
    mine = controllers == "" if kind == "cgroup2" else controller in controllers.split(",")
    return Path(path) if mine else None
