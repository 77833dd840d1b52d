"""A source in a .zip file, read in place: nothing is unpacked to disk."""

import contextlib
import functools
import logging
import re
import stat
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from components.shared.errors import UserError
from components.shared.reading.sources.source import (
    Source,
    SourceFile,
    UnreadableFileError,
    listed,
)
from components.shared.storage.store import explain_disk

logger = logging.getLogger(__name__)

_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4
_IMAGES = (".tif", ".tiff", ".nii", ".nii.gz", ".dcm")
_DRIVE = re.compile(r"[A-Za-z]:")

# zipfile cannot stop in the middle of the others: a hundred bytes of bzip2 may be gigabytes
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile lets through for a damaged member (found by changing bytes at random).
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # encrypted by its own header; NotImplementedError: an unknown compression
    ValueError,  # a negative position, a name that is not UTF-8
)


@dataclass(frozen=True)
class ArchiveSource:
    """All members of a zip archive.

    Attributes:
        file: The archive, or a function that opens it and can be pickled.
    """

    uri: str
    file: Path | Callable[[], IO[bytes]]
    max_archive_gib: float

    @property
    def name(self) -> str:
        return PurePosixPath(self.uri).stem

    def files(self) -> list[SourceFile]:
        self._refuse_unsafe([member for group in self._members.values() for member in group])
        found = [
            _listed(name, member, len(group))
            for name, group in self._members.items()
            for member in group
        ]
        return sorted(found, key=lambda file: file.path)

    def read(self, path: str) -> bytes:
        member = self._members[path][-1]
        with _explained(), self._archive.open(member) as stream:
            # not `read()`, which unpacks all that the stream yields and cuts it then
            return stream.read(member.file_size)

    def copy(self, path: str, target: BinaryIO) -> None:
        """Unpacks a file that may be too large for memory."""
        with _explained():
            stream = self._archive.open(self._members[path][-1])

        def chunk() -> bytes:
            with _explained():
                return stream.read(2**20)

        with stream:
            target.writelines(iter(chunk, b""))

    def __reduce__(self) -> tuple[Callable[..., "ArchiveSource"], tuple[object, ...]]:
        # without the open file
        return ArchiveSource, (self.uri, self.file, self.max_archive_gib)

    @functools.cached_property
    def _members(self) -> dict[str, list[zipfile.ZipInfo]]:
        members: dict[str, list[zipfile.ZipInfo]] = defaultdict(list)
        for member in self._archive.infolist():
            # some tools of Windows write backslashes between the parts of a name
            name = member.filename.replace("\\", "/")
            if not name.endswith("/"):
                members[name].append(member)
        return members

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.file if isinstance(self.file, Path) else self.file())
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise UserError(
                f"source {self.uri} is not a whole zip archive ({error}); download it again"
            ) from error
        except OSError as error:
            raise UserError(f"source {self.uri} cannot be read: {error.strerror}") from error

    def _refuse_unsafe(self, members: list[zipfile.ZipInfo]) -> None:
        unsafe = [member.filename for member in members if _leaves(member.filename)]
        if unsafe:
            raise UserError(
                f"source {self.uri} is refused: {len(unsafe)} of its names lead out of the "
                f"archive, e.g. {unsafe[0]!r}; such an archive may be an attack, ask who made it"
            )
        gib = sum(member.file_size for member in members) / 2**30
        if gib > self.max_archive_gib:
            raise UserError(
                f"source {self.uri} is refused: its files unpack to {gib:.3g} GiB, the limit is "
                f"max_archive_gib={self.max_archive_gib:g}; raise the limit if that is right"
            )
        if any(member.flag_bits & _ENCRYPTED for member in members):
            raise UserError(
                f"source {self.uri} is encrypted; unpack it with its password and give the folder"
            )


@contextlib.contextmanager
def archives_inside(outer: ArchiveSource) -> Iterator[ArchiveSource]:
    """Opens the only archive in an archive, unpacked to a temporary file, or the archive itself."""
    inner = only_archive(outer)
    if inner is None:
        yield outer
        return
    with contextlib.ExitStack() as stack:
        try:
            with explain_disk("temporary folder (TMPDIR)"):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="brainseg-zip-"))
                path = Path(folder, "inner.zip")
                with open(path, "wb") as stream:
                    outer.copy(inner, stream)
        except UnreadableFileError as error:
            raise UserError(f"source {outer.uri}: {inner}: {error}") from error
        yield ArchiveSource(f"{outer.uri}/{inner}", path, outer.max_archive_gib)


def only_archive(source: Source) -> str | None:
    """Path of the .zip file to read in place of a source that has no image file.

    Raises:
        UserError: If there are several.
    """
    files = source.files()
    found = [file.path for file in files if re.fullmatch(r"[^./][^/]*\.zip", file.path, re.I)]
    if not found or any(file.name.lower().endswith(_IMAGES) for file in files):
        return None
    if len(found) > 1:
        raise UserError(
            f"source {source.uri} holds no image file and {len(found)} .zip files: "
            f"{', '.join(found[:5])}; give one of them, or unpack them into one folder"
        )
    logger.info("reading %s in %s", found[0], source.uri)
    return found[0]


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise UnreadableFileError(f"the archive is damaged here: {reason}") from error
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error}") from error


def _leaves(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or bool(_DRIVE.match(name))


def _listed(name: str, member: zipfile.ZipInfo, times: int) -> SourceFile:
    problem = None
    if member.compress_type not in _READ:
        problem = "compressed in the archive by another method than deflate; zip it again"
    if times > 1:
        problem = f"the archive holds {times} members of this name"
    if stat.S_ISLNK(member.external_attr >> 16):  # the upper half is the Unix mode
        problem = "symbolic link in the archive"
    return listed(name, member.file_size, problem, f"{member.CRC:x}")
