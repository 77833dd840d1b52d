"""A source on this machine: a folder or a .zip file."""

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

from components.shared.errors import UserError
from components.shared.reading.sources.archive import ArchiveSource, archives_inside, only_archive
from components.shared.reading.sources.folder import FolderSource
from components.shared.reading.sources.opening import source_forms
from components.shared.reading.sources.source import Source

SCHEME = ""
FORM = "a folder, a .zip file"
SHARED = False


def check_form(uri: str) -> None:
    """Accepts any path: only opening shows what is there."""


@contextlib.contextmanager
def open_uri(uri: str, max_archive_gib: float) -> Iterator[Source]:
    """Opens a folder or a .zip file, symbolic links resolved."""
    path = Path(uri)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"source {uri} does not exist; give {source_forms()}") from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise UserError(f"source {uri} {reason}; give {source_forms()}") from error
    if stat.S_ISDIR(mode):
        yield open_folder(uri, path.resolve(), max_archive_gib)
    elif stat.S_ISREG(mode) and path.suffix.lower() == ".zip":
        with archives_inside(ArchiveSource(uri, path.resolve(), max_archive_gib)) as source:
            yield source
    else:
        raise UserError(f"source {uri} is neither a folder nor a .zip file; give {source_forms()}")


def open_folder(uri: str, root: Path, max_archive_gib: float) -> Source:
    """Opens a folder, or the only .zip file in it."""
    source = FolderSource(uri, root)
    archive = only_archive(source)
    if archive is None:
        return source
    return ArchiveSource(f"{uri}/{archive}", root / archive, max_archive_gib)
