"""Opens the places that patients come from."""

import contextlib
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.shared.errors import UserError
from components.shared.reading.sources.archive import ArchiveSource
from components.shared.reading.sources.bucket import BucketSource
from components.shared.reading.sources.folder import FolderSource
from components.shared.reading.sources.kaggle import download_kaggle
from components.shared.reading.sources.source import Source
from components.shared.reading.sources.synthetic import write_synthetic
from components.shared.storage.s3 import parse_s3_uri

_FORMS = (
    "a folder, a .zip file, s3://bucket/prefix, kaggle:owner/dataset or synthetic:PATIENTS[,seed=N]"
)
_SYNTHETIC = re.compile(r"synthetic:(?P<patients>[0-9]{1,6})(?:,seed=(?P<seed>[0-9]{1,9}))?")
_KAGGLE = re.compile(r"kaggle:[\w.-]+/[\w./-]+")


@contextlib.contextmanager
def open_source(uri: str, max_archive_gib: float = 64.0) -> Iterator[Source]:
    """Opens a source; what it needed on the way (a temporary folder) is gone afterwards.

    Args:
        uri: A folder, a .zip file, `s3://bucket/prefix`, `kaggle:owner/dataset` or
            `synthetic:PATIENTS[,seed=N]`.
        max_archive_gib: A .zip that unpacks to more is refused.

    Raises:
        UserError: If `uri` has another form, or nothing readable is there.
    """
    if uri.startswith("synthetic:"):
        with tempfile.TemporaryDirectory(prefix="brainseg-synthetic-") as folder:
            yield _synthetic(uri, Path(folder))
    elif uri.startswith("s3://"):
        yield BucketSource(uri)
    elif uri.startswith("kaggle:"):
        yield download_kaggle(uri)
    elif "://" in uri or not uri:
        raise UserError(f"source {uri!r} is not understood; give {_FORMS}")
    else:
        yield _local(uri, max_archive_gib)


def require_shared_source(uri: str) -> None:
    """Refuses a source that other machines do not see, or whose form is wrong.

    Args:
        uri: What a step on another machine will open.

    Raises:
        UserError: If it is local, or another form than `open_source` knows.
    """
    if uri.startswith("synthetic:"):
        _parse_synthetic(uri)
    elif uri.startswith("s3://"):
        parse_s3_uri(uri)
    elif not _KAGGLE.fullmatch(uri):
        raise UserError(
            f"source {uri!r} is seen by this machine only, or not understood; give "
            "s3://bucket/prefix (copy it there first), kaggle:owner/dataset or "
            "synthetic:PATIENTS[,seed=N]"
        )


def _synthetic(uri: str, folder: Path) -> Source:
    patients, seed = _parse_synthetic(uri)
    return FolderSource(uri, write_synthetic(folder, patients, seed).resolve())


def _parse_synthetic(uri: str) -> tuple[int, int]:
    match = _SYNTHETIC.fullmatch(uri)
    if match is None or int(match["patients"]) == 0:
        raise UserError(
            f"source {uri!r} is not understood; the form is synthetic:PATIENTS[,seed=N], "
            "e.g. synthetic:24,seed=1"
        )
    return int(match["patients"]), int(match["seed"] or 0)


def _local(uri: str, max_archive_gib: float) -> Source:
    path = Path(uri)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"source {uri} does not exist; give {_FORMS}") from error
    except OSError as error:
        raise UserError(f"source {uri} cannot be read: {error.strerror}; give {_FORMS}") from error
    if stat.S_ISDIR(mode):
        return FolderSource(uri, path.resolve())
    if stat.S_ISREG(mode) and path.suffix.lower() == ".zip":
        return ArchiveSource(uri, path.resolve(), max_archive_gib)
    raise UserError(f"source {uri} is neither a folder nor a .zip file; give {_FORMS}")
