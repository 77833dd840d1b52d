"""A source in a .zip file, read in place: nothing is unpacked to disk."""

import functools
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.shared.errors import UserError
from components.shared.reading.sources.source import SourceFile, UnreadableFileError, listed

_ENCRYPTED = 0x1  # general purpose bit 0, APPNOTE.TXT 4.4.4
_DRIVE = re.compile(r"[A-Za-z]:")

# zipfile cannot stop in the middle of the others: a hundred bytes of bzip2 may be gigabytes
_READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile lets through for a damaged member (found by changing bytes at random).
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError),
    RuntimeError,  # encrypted by its own header; NotImplementedError: an unknown compression
    ValueError,  # a negative position, a name that is not UTF-8
)


@dataclass(frozen=True)
class ArchiveSource:
    """All members of a zip archive."""

    uri: str
    path: Path
    max_archive_gib: float

    @property
    def name(self) -> str:
        return self.path.stem

    def files(self) -> list[SourceFile]:
        members = [member for member in self._archive.infolist() if not member.is_dir()]
        self._refuse_unsafe(members)
        times = Counter(member.filename for member in members)
        found = [_listed(member, times[member.filename]) for member in members]
        return sorted(found, key=lambda file: file.path)

    def read(self, path: str) -> bytes:
        try:
            with self._archive.open(path) as member:
                # not `read()`, which unpacks all that the stream yields and cuts it then
                return member.read(self._archive.getinfo(path).file_size)
        except _DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise UnreadableFileError(f"the archive is damaged here: {reason}") from error
        except OSError as error:
            raise UnreadableFileError(f"cannot be read: {error}") from error

    def __reduce__(self) -> tuple[Callable[..., "ArchiveSource"], tuple[object, ...]]:
        # without the open file
        return ArchiveSource, (self.uri, self.path, self.max_archive_gib)

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
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


def _leaves(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or bool(_DRIVE.match(name))


def _listed(member: zipfile.ZipInfo, times: int) -> SourceFile:
    problem = None
    if member.compress_type not in _READ:
        problem = "compressed in the archive by another method than deflate; zip it again"
    if times > 1:
        problem = f"the archive holds {times} members of this name"
    if stat.S_ISLNK(member.external_attr >> 16):  # the upper half is the Unix mode
        problem = "symbolic link in the archive"
    return listed(member.filename, member.file_size, problem)
