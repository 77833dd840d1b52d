"""A source in a local folder."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from components.shared.errors import UserError
from components.shared.reading.sources.source import (
    NOT_A_FILE,
    SourceFile,
    UnreadableFileError,
    listed,
)


@dataclass(frozen=True)
class FolderSource:
    """All files below `root`, an absolute path; symbolic links may not lead out of it."""

    uri: str
    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    def files(self) -> list[SourceFile]:
        unlistable: list[OSError] = []
        found = []
        for folder, folders, names in os.walk(self.root, onerror=unlistable.append):
            paths = [Path(folder, name) for name in folders]
            found += [self._link(path) for path in paths if path.is_symlink()]
            found += [self._file(Path(folder, name)) for name in names]
        found += [self._unlistable(error) for error in unlistable]
        return sorted(found, key=lambda file: file.path)

    def read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise UnreadableFileError(f"cannot be read: {error.strerror}") from error

    def _file(self, path: Path) -> SourceFile:
        relative = self._relative(path)
        try:
            status = path.stat()
        except OSError as error:
            return listed(relative, 0, f"cannot be read: {error.strerror}")
        problem = self._problem(path, status)
        return listed(relative, status.st_size, problem, f"{status.st_mtime_ns:x}")

    def _problem(self, path: Path, status: os.stat_result) -> str | None:
        if path.is_symlink() and not self._inside(path):
            return "symbolic link out of the source"
        return None if stat.S_ISREG(status.st_mode) else "not a regular file"

    def _link(self, path: Path) -> SourceFile:
        problem = "symbolic link " + ("to a folder" if self._inside(path) else "out of the source")
        return listed(f"{self._relative(path)}/{NOT_A_FILE}", 0, problem)

    def _unlistable(self, error: OSError) -> SourceFile:
        relative = self._relative(Path(str(error.filename)))
        if relative == ".":
            raise UserError(
                f"source {self.uri} cannot be read: {error.strerror}; change the folder's rights "
                "or run as its owner"
            )
        return listed(f"{relative}/{NOT_A_FILE}", 0, f"cannot be listed: {error.strerror}")

    def _inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()
