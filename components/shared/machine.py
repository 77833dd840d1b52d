"""CPU cores and memory that the machine or container leaves to this process."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_PROCESS = Path("/proc/self")


def usable_cores() -> int:
    """Returns the CPU cores of this process: its affinity, or its container's quota if less.

    A fraction of a core counts as one, so that all of the quota can be used. Threads that wait for
    each other may gain nothing by it (half a core: 15 %; a quarter: nothing), see
    `components.shared.threads`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota()
    return min(cores or 1, math.ceil(quota)) if quota else cores or 1


def cpu_quota(process: Path = _PROCESS) -> float | None:
    """Returns the cores that the process may use on average; `None` without a limit."""
    quotas = [_quota(group) for group in _cgroups("cpu", process)]
    return min((quota for quota in quotas if quota is not None), default=None)


def free_memory() -> int | None:
    """Returns the free bytes of the system, or of the container's limit if that is less."""
    free = [_available(), memory_left()]
    return min((value for value in free if value is not None), default=None)


def memory_left(process: Path = _PROCESS) -> int | None:
    """Returns the bytes left by the limits of the process's cgroups; `None` without a limit.

    The file cache counts as free: the kernel frees it before it refuses memory.
    """
    left = [_left(group) for group in _cgroups("memory", process)]
    return min((value for value in left if value is not None), default=None)


def _quota(group: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # v2, v1
        try:
            allowed, period = " ".join((group / name).read_text() for name in names).split()
            quota = int(allowed) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # missing, or "max": no limit
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


def _left(group: Path) -> int | None:
    names = (
        ("memory.max", "memory.current", "inactive_file"),  # v2
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # v1
    )
    for limit, usage, cached in names:
        try:
            left = int((group / limit).read_text()) - int((group / usage).read_text())
            lines = map(str.split, (group / "memory.stat").read_text().splitlines())
            return max(left + next(int(value) for name, value in lines if name == cached), 0)
        except (OSError, ValueError, StopIteration):  # missing, or "max": no limit
            continue
    return None


def _cgroups(controller: str, process: Path) -> Iterator[Path]:
    """Yields the folders of the process's cgroup and of the visible ones above it.

    Any of them may hold the limit. A container sees its own cgroup as the root of the mount.
    """
    try:
        mounts = (process / "mountinfo").read_text().splitlines()
        groups = (process / "cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for kind, root, mounted in filter(None, (_mount(line, controller) for line in mounts)):
        for own in filter(None, (_path(line, kind, controller) for line in groups)):
            seen = own.is_relative_to(root) and ".." not in own.parts
            inside = own.relative_to(root) if seen else Path()
            yield from (mounted / folder for folder in (inside, *inside.parents))


def _mount(line: str, controller: str) -> tuple[str, Path, Path] | None:
    """Returns file system, mounted folder and mount point; see proc_pid_mountinfo(5)."""
    mount, _, system = (part.split() for part in line.partition(" - "))
    kind, options = system[0], system[-1].split(",")
    if kind == "cgroup2" or (kind == "cgroup" and controller in options):
        return kind, Path(mount[3]), Path(mount[4])
    return None


def _path(line: str, kind: str, controller: str) -> Path | None:
    """Returns the cgroup's path in its hierarchy; see cgroups(7)."""
    _, controllers, path = line.split(":", 2)
    mine = controllers == "" if kind == "cgroup2" else controller in controllers.split(",")
    return Path(path) if mine else None
