"""What this machine, or the container on it, gives to a process."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """CPU cores that this process may use; a container may be given less than there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


def free_memory() -> int | None:
    """Bytes: what the system has, or what the container's limit leaves if that is less."""
    free = [_available(), _cgroup_rest(_CGROUP)]
    return min((value for value in free if value is not None), default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return next(found, None)


def _cgroup_rest(root: Path) -> int | None:
    """What the container's limit leaves; the cache of files counts as free."""
    names = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),  # cgroup v2
        (  # v1
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    )
    for limit, usage, statistics, cached in names:
        try:
            rest = int((root / limit).read_text()) - int((root / usage).read_text())
            lines = map(str.split, (root / statistics).read_text().splitlines())
        except (OSError, ValueError):  # not there, or "max": no limit
            continue
        return rest + next((int(value) for name, value in lines if name == cached), 0)
    return None
