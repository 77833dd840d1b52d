"""What every kind of source offers."""

from dataclasses import dataclass
from typing import Protocol

from components.shared.printable import printable

NOT_A_FILE = "*"  # last part of a path that stands for a folder nobody can look into


@dataclass(frozen=True, slots=True)  # there may be a million
class SourceFile:
    """A file as it is listed, before it is read.

    Attributes:
        path: Where it lies in the source, with `/` between the parts.
        size: Bytes.
        problem: Why it cannot be read, if the listing shows that already.
    """

    path: str
    size: int
    problem: str | None = None

    @property
    def folder(self) -> str:
        """The path without the last part; empty at the top."""
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


def listed(path: str, size: int, problem: str | None = None) -> SourceFile:
    """A file under a name that can be printed; one whose own name cannot has a problem.

    Args:
        path: As the source spells it.
        size: Bytes.
        problem: Why it cannot be read for another reason.
    """
    shown = printable(path)
    if shown != path and not problem:
        problem = "its name holds control characters or is not UTF-8"
    return SourceFile(shown, size, problem)


class UnreadableFileError(Exception):
    """One file of a source cannot be read; the text is the reason."""


class Source(Protocol):
    """Where patients come from. It can be pickled and used in another process.

    Attributes:
        uri: How the user named it.
        name: Name of the folder that its top stands for.
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
