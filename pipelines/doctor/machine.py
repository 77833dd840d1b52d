"""Checks of the machine: disks, memory, shared memory, device."""

import os
import shutil
from pathlib import Path

from components.shared.machine import free_memory, usable_cores
from components.shared.process import cache_folder
from components.shared.tracking.address import sqlite_file
from pipelines.doctor.check import GIB, INSTALL, OTHER_PLACE, Check, Thresholds

# The public set takes 0.7 GiB as volumes, and a training step a few GiB of memory.
_DISK_GIB = Thresholds(error=1, warning=5)
_MEMORY_GIB = Thresholds(error=2, warning=4)
_SHARED_MEMORY_GIB = Thresholds(error=0, warning=1)


def check_disks(
    store_uri: str, tracking_uri: str, least_gib: Thresholds = _DISK_GIB
) -> list[Check]:
    """Check free space where a run writes: the cache, and a local store and MLflow."""
    folders = {"cache": cache_folder().absolute()}
    if "://" not in store_uri:
        folders["store"] = Path(store_uri).absolute()
    if database := sqlite_file(tracking_uri):
        folders["MLflow"] = database.parent
    return [_check_disk(f"disk, {name}", folder, least_gib) for name, folder in folders.items()]


def check_memory(least_gib: Thresholds = _MEMORY_GIB) -> Check:
    """Check the memory that this process may still use."""
    free = free_memory()
    if free is None:
        return Check("memory", "ok", "not known on this system")
    freed = "close other programs, or give the container more memory"
    advice = f"{freed}; or lower train.sampling.batch_size"
    return least_gib.check("memory", free / GIB, f"{free / GIB:.1f} GiB free", advice)


def check_shared_memory(folder: Path, least_gib: Thresholds = _SHARED_MEMORY_GIB) -> Check:
    """Check the room for batches of loader processes."""
    if not folder.is_dir():
        return Check("shared mem", "ok", f"this system has no {folder}")
    size = shutil.disk_usage(folder).total / GIB
    advice = (
        "mount a memory emptyDir there or start the container with --shm-size=2g; or keep "
        "train.compute.loader_workers=0"
    )
    return least_gib.check("shared mem", size, f"{folder}: {size:.2f} GiB", advice)


def check_device() -> Check:
    """Check the device that training would use."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its libraries does not load
        return Check("device", "error", f"torch cannot be imported: {error}", INSTALL)
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        found = f"{torch.cuda.device_count()} x {gpu.name}, {gpu.total_memory / GIB:.0f} GiB"
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has_bf16 else "no bf16: trains in float16"
        return Check("device", "ok", f"{found}, {precision}")
    found = f"{usable_cores()} CPU cores, no GPU (torch {torch.__version__})"
    if Path("/dev/nvidia0").exists():
        advice = "a GPU is there but torch cannot use it: install its driver and a CUDA torch"
        return Check("device", "warning", found, advice)
    return Check("device", "ok", found)


def existing(folder: Path) -> Path:
    """Return the folder itself, or the nearest parent that exists."""
    # os.path.exists: Path.exists raises where a folder above may not be entered
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))


def why_not_writable(folder: Path) -> str | None:
    """Return why no file can be written to a folder, which need not exist; `None` if it can."""
    place = existing(folder)
    if not place.is_dir():
        return f"{place} is a file where a folder should be"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"


def _check_disk(name: str, folder: Path, least_gib: Thresholds) -> Check:
    if problem := why_not_writable(folder):
        return Check(name, "error", problem, OTHER_PLACE)
    place = existing(folder)
    free = shutil.disk_usage(place).free / GIB
    found = f"{free:.1f} GiB free at {place}"
    return least_gib.check(name, free, found, "free space, or choose another place")
