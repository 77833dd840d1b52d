"""What is wrong with this machine and its settings, and what to do about it."""

import base64
import http.client
import os
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

# what is not of the standard library is imported where it is checked: it may be missing
from components.shared.errors import UserError
from components.shared.machine import free_memory, usable_cores
from components.shared.process import cache_folder

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Status = Literal["ok", "warning", "error"]

_DISTRIBUTION = "brainseg"
_EXTRAS = ("", "kaggle", "trainer", "pipelines")
_CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
_PYTHONS = ((3, 11), (3, 13))  # as in pyproject.toml
_OTHER_PLACE = "change its rights, or choose another place"
_INSTALL = "pip install 'brainseg[all]' (or `make run` in a clone)"
_TIMEOUT_S = 5
# /health answers whoever asks; this call is refused to wrong names, hosts and passwords.
_MLFLOW_CALL = "/api/2.0/mlflow/experiments/search?max_results=1"
_GIB = 2**30
# The public set takes 0.7 GiB as volumes, and a training step a few GiB of memory.
_DISK_GIB: tuple[float, float] = (1, 5)
_MEMORY_GIB: tuple[float, float] = (2, 4)
_SHARED_MEMORY_GIB = 1.0


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at, a word or two.
        status: `warning` works but slowly or not for all; `error` will fail.
        found: What is the case.
        advice: What to do; empty if nothing.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def checks(store_uri: str) -> list[Check]:
    """Looks at everything a run needs; takes some seconds.

    Args:
        store_uri: The store to try, `s3://bucket/prefix` or a folder.
    """
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return [
        check_store(store_uri),
        check_mlflow(tracking_uri),
        *check_disks(store_uri, tracking_uri),
        check_memory(),
        check_shared_memory(Path("/dev/shm")),
        check_device(),
        check_python(),
        check_packages(),
    ]


def check_store(uri: str) -> Check:
    """Writes, reads, lists and deletes a small object."""
    started = time.monotonic()
    try:
        _try_store(uri)
    except ImportError as error:
        return Check("store", "error", f"{uri} cannot be tried: {error}", _INSTALL)
    except UserError as error:
        return Check("store", "error", str(error))  # says itself what to do
    milliseconds = 1000 * (time.monotonic() - started)
    return Check("store", "ok", f"{uri}: wrote, read and deleted in {milliseconds:.0f} ms")


def check_mlflow(uri: str) -> Check:
    """Asks the tracking server for an experiment, or opens the SQLite file."""
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        return _check_server(uri)
    if scheme == "sqlite":
        return _check_sqlite(_database(uri))
    if not uri:
        return Check("MLflow", "ok", "MLFLOW_TRACKING_URI is not set: runs go to a local file")
    return Check(
        "MLflow",
        "warning",
        f"MLFLOW_TRACKING_URI={uri!r} is not looked into",
        "give http(s)://host:port of a tracking server, or sqlite:////absolute/path",
    )


def check_disks(store_uri: str, tracking_uri: str) -> list[Check]:
    """Free space where a run writes: the cache, and a local store and MLflow."""
    folders = {"cache": cache_folder().absolute()}
    if "://" not in store_uri:
        folders["store"] = Path(store_uri).absolute()
    if urlsplit(tracking_uri).scheme == "sqlite":
        folders["MLflow"] = _database(tracking_uri).parent
    return [_check_disk(f"disk, {name}", folder) for name, folder in folders.items()]


def check_memory() -> Check:
    """Memory that this process may still use."""
    free = free_memory()
    if free is None:
        return Check("memory", "ok", "not known on this system")
    advice = (
        "close other programs, or give the container more memory; or lower "
        "train.sampling.batch_size"
    )
    return _graded("memory", free / _GIB, _MEMORY_GIB, f"{free / _GIB:.1f} GiB free", advice)


def check_shared_memory(folder: Path) -> Check:
    """Room for what loader processes hand over."""
    if not folder.is_dir():
        return Check("shared mem", "ok", f"this system has no {folder}")
    size = shutil.disk_usage(folder).total / _GIB
    found = f"{folder}: {size:.2f} GiB"
    if size >= _SHARED_MEMORY_GIB:
        return Check("shared mem", "ok", found)
    advice = "mount a memory emptyDir there or start the container with --shm-size=2g; or keep "
    return Check("shared mem", "warning", found, advice + "train.compute.loader_workers=0")


def check_device() -> Check:
    """What training would run on."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its libraries does not load
        return Check("device", "error", f"torch cannot be imported: {error}", _INSTALL)
    if torch.cuda.is_available():
        return _check_gpu()
    found = f"{usable_cores()} CPU cores, no GPU (torch {torch.__version__})"
    if Path("/dev/nvidia0").exists():
        advice = "a GPU is there but torch cannot use it: install its driver and a CUDA torch"
        return Check("device", "warning", found, advice)
    return Check("device", "ok", found)


def check_python() -> Check:
    """The interpreter's version."""
    (low, high), version = _PYTHONS, sys.version_info[:2]
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if low <= version <= high:
        return Check("Python", "ok", found)
    low_text, high_text = (".".join(map(str, limit)) for limit in (low, high))
    return Check("Python", "error", found, f"use Python {low_text} to {high_text}")


def check_packages() -> Check:
    """Whether all packages are there, in the versions that were tested."""
    try:
        missing = list(_missing(metadata.requires(_DISTRIBUTION) or []))
    except metadata.PackageNotFoundError:
        return Check("packages", "error", f"{_DISTRIBUTION} itself is not installed", _INSTALL)
    except ImportError as error:
        return Check("packages", "error", f"cannot be listed: {error}", _INSTALL)
    if missing:
        return Check("packages", "error", f"missing: {', '.join(missing)}", _INSTALL)
    differing = list(_differing(_CONSTRAINTS))
    if differing:
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        advice = f"pip install --constraint {_CONSTRAINTS.name} --editable '.[all]'"
        found = f"{len(differing)} differ from the tested versions: {shown}"
        return Check("packages", "warning", found, advice)
    return Check("packages", "ok", f"all there ({_DISTRIBUTION} {metadata.version(_DISTRIBUTION)})")


def _try_store(uri: str) -> None:
    from components.shared.storage.store import FolderStore, open_store

    store = open_store(uri)
    root = store.root if isinstance(store, FolderStore) else None
    existing = root and _existing(root)
    key, data = f"doctor-{uuid.uuid4().hex}", os.urandom(1024)
    store.write(key, data)
    if store.read(key) != data or not store.exists(key):
        raise UserError(f"store {store.uri}: what is read is not what was written")
    store.delete(key)
    if root:
        _remove_empty(root, existing)


def _remove_empty(folder: Path, kept: Path | None) -> None:
    # leave no trace of a store that was only asked about
    with suppress(OSError):  # a run has begun to use it
        while folder != kept:
            folder.rmdir()
            folder = folder.parent


def _check_server(uri: str) -> Check:
    try:
        _ask(f"{uri.rstrip('/')}{_MLFLOW_CALL}")
        return Check("MLflow", "ok", f"{uri} answers{_server_version(uri)}")
    except HTTPError as error:
        advice = {
            401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            403: "start the server with --allowed-hosts that lists this name and port",
        }.get(error.code, "check MLFLOW_TRACKING_URI: is this an MLflow server?")
        return Check("MLflow", "error", f"{uri} answers {error.code} {error.reason}", advice)
    except (URLError, OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        advice = "check MLFLOW_TRACKING_URI and that the server is up"
        return Check("MLflow", "error", f"no answer from {uri}: {reason}", advice)


def _server_version(uri: str) -> str:
    try:
        return ", version " + _ask(f"{uri.rstrip('/')}/version")
    except (URLError, OSError, http.client.HTTPException):  # only told, so not worth an error
        return ""


def _ask(url: str) -> str:
    request = Request(url)
    user, password = (
        os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD")
    )
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    elif user and password:
        both = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {both}")
    with urlopen(request, timeout=_TIMEOUT_S) as answer:
        return str(answer.read(100).decode(errors="replace"))


def _database(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///")).absolute()


def _check_sqlite(path: Path) -> Check:
    if problem := _cannot_write(path.parent):
        return Check("MLflow", "error", f"{path}: {problem}", _OTHER_PLACE)
    if not path.exists():
        return Check("MLflow", "ok", f"{path} will be made by the first run")
    try:
        runs = _count_runs(path)
    except (sqlite3.Error, OSError) as error:
        advice = "end other writers, change its rights, or move it away: the next run makes another"
        return Check("MLflow", "error", f"{path}: {error}", advice)
    return Check("MLflow", "ok", f"{path} holds {runs} runs")


def _count_runs(path: Path) -> int:
    if not os.access(path, os.R_OK | os.W_OK):  # SQLite would silently open it for reading only
        raise PermissionError("it cannot be written")
    uri = f"{path.as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S)) as database:
        database.execute("BEGIN IMMEDIATE")  # asks for the right to write
        return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])


def _check_disk(name: str, folder: Path) -> Check:
    if problem := _cannot_write(folder):
        return Check(name, "error", problem, _OTHER_PLACE)
    place = _existing(folder)
    free = shutil.disk_usage(place).free / _GIB
    found = f"{free:.1f} GiB free at {place}"
    return _graded(name, free, _DISK_GIB, found, "free space, or choose another place")


def _cannot_write(folder: Path) -> str | None:
    """What stands in the way of files in a folder, which need not be there yet."""
    place = _existing(folder)
    if not place.is_dir():
        return f"{place} is a file where a folder should be"
    return None if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written"


def _existing(folder: Path) -> Path:
    # os.path.exists: Path.exists raises where a folder above may not be entered
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))


def _graded(name: str, value: float, limits: tuple[float, float], found: str, advice: str) -> Check:
    if value >= limits[1]:
        return Check(name, "ok", found)
    return Check(name, "error" if value < limits[0] else "warning", found, advice)


def _check_gpu() -> Check:
    import torch

    gpu = torch.cuda.get_device_properties(0)
    found = f"{torch.cuda.device_count()} x {gpu.name}, {gpu.total_memory / _GIB:.0f} GiB"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Check("device", "ok", f"{found}, bf16")
    advice = "this GPU has no bf16: use train.compute.precision=16-mixed"
    return Check("device", "warning", found, advice)


def _missing(requirements: list[str]) -> Iterator[str]:
    from packaging.requirements import Requirement

    for requirement in map(Requirement, requirements):
        if requirement.name == _DISTRIBUTION or not _wanted(requirement):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield str(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name}{requirement.specifier} (found {version})"


def _wanted(requirement: "Requirement") -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in _EXTRAS)


def _differing(constraints: Path) -> Iterator[str]:
    if not constraints.exists():  # installed without the clone
        return
    pins = (line.split("#")[0].strip() for line in constraints.read_text().splitlines())
    for name, equals, pinned in (pin.partition("==") for pin in pins):
        if not equals:
            continue
        try:
            found = metadata.version(name.strip())
        except metadata.PackageNotFoundError:
            continue  # of another platform or extra
        if found.partition("+")[0] != pinned.split(";")[0].strip().partition("+")[0]:
            yield f"{name.strip()} {found} ({pinned.strip()})"
