"""The interface of sources."""

from dataclasses import dataclass, field
from typing import Protocol

from components.shared.printable import printable

NOT_A_FILE = "*"  # last part of the path of an unreadable folder


@dataclass(frozen=True, slots=True)  # there may be a million
class SourceFile:
    """A listed file, before it is read.

    Attributes:
        path: Path in the source, with `/` between its parts.
        problem: Reason why it cannot be read, if the listing shows one.
        version: Text that changes with the content, as far as a listing shows it.
    """

    path: str
    size: int
    problem: str | None = None
    version: str = field(default="", compare=False)

    @property
    def folder(self) -> str:
        """The path without the last part; empty at the top."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def listed(path: str, size: int, problem: str | None = None, version: str = "") -> SourceFile:
    """Returns a file under a printable name; a file with another name has a problem."""
    shown = printable(path)
    if shown != path and not problem:
        problem = "its name holds control characters or is not UTF-8"
    return SourceFile(shown, size, problem, version)


class UnreadableFileError(Exception):
    """One file of a source cannot be read; the text is the reason."""


class Source(Protocol):
    """A place of patients' files. It can be pickled and used in another process.

    Attributes:
        uri: URI that the user gave.
        name: Name of its top folder.
    """

    @property
    def uri(self) -> str: ...

    @property
    def name(self) -> str: ...

    def files(self) -> list[SourceFile]:
        """Lists all files, sorted by path.

        Raises:
            UserError: If the source as a whole cannot be read or is unsafe.
        """

    def read(self, path: str) -> bytes:
        """Reads one file.

        Raises:
            UnreadableFileError: If this file cannot be read.
            UserError: If the source as a whole fails.
        """
