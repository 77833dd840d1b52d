"""Scans as a source lists them, before a voxel is read."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from components.shared.dataset.ingest_account import Quarantined
from components.shared.errors import UserError
from components.shared.reading.sources.source import SourceFile

MIB = 2**20


class BadScanError(Exception):
    """A scan is invalid; the text is the reason, without the scan's name."""


@dataclass(frozen=True)
class ScanName:
    """Identity of a scan, see `VolumeEntry`; an unknown date is empty."""

    volume: str
    patient: str
    site: str
    date: str


@dataclass(frozen=True)
class Scan:
    """Files of one volume.

    Attributes:
        name: Names of volume, patient and site, and the date.
        copies: All its files; several times if the source holds equal copies of the scan.
        parts: Files by channel, and those of the label under `LABEL`; empty where only the names
            of slices distinguish them.
        is_hashed: Whether names of files are hidden in messages and accounts.
    """

    name: ScanName
    copies: tuple[tuple[SourceFile, ...], ...]
    parts: Mapping[str, tuple[SourceFile, ...]] = field(default_factory=dict)
    is_hashed: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """All files of all copies."""
        paths = (file.path for copy in self.copies for file in copy)
        return tuple(map(hashed_name, paths) if self.is_hashed else paths)


@dataclass(frozen=True)
class Listing:
    """All files of a source, each in one of four groups.

    Attributes:
        scans: Files that may be volumes, sorted by name.
        quarantined: Files that belong to a volume but cannot be one.
        ignored: Other files, by the rule that ignores them.
        tables: Tables with attributes of patients.
        files_found: Number of all files.
    """

    scans: tuple[Scan, ...]
    quarantined: tuple[Quarantined, ...]
    ignored: Mapping[str, tuple[str, ...]]
    tables: tuple[SourceFile, ...]
    files_found: int


@dataclass(frozen=True)
class SizeLimits:
    """Sizes of what is read.

    Attributes:
        max_file_mib: Largest file, and largest slice after unpacking.
        max_volume_mib: Largest volume, unpacked. Without a limit, a few kilobytes of a file unpack
            to gigabytes.
    """

    max_file_mib: float = 64.0
    max_volume_mib: float = 400.0

    @property
    def volume_bytes(self) -> int:
        """Largest volume in bytes."""
        return int(self.max_volume_mib * MIB)

    @property
    def worker_bytes(self) -> int:
        """Memory of a process that reads one volume at a time: 1 GiB for one of 400 MiB.

        The largest takes up to 963 MiB in ingest: 63 for Python and its libraries, twice the volume
        (its voxels, and the file or the store's object) and a quarter for its statistics.
        """
        return max(2**30, int((2.5 * self.max_volume_mib + 24) * MIB))


def nothing_accepted(
    source_uri: str, quarantined: Sequence[Quarantined], none_found: str, expected: str
) -> UserError:
    """Returns the error for a source without a valid volume.

    Args:
        source_uri: URI of the source.
        quarantined: Refused volumes.
        none_found: Description of a source without any volume.
        expected: Description of the layout.
    """
    reasons = "; ".join(f"{bad.volume}: {bad.reason}" for bad in quarantined[:3])
    found = f"{len(quarantined)} refused ({reasons})" if quarantined else none_found
    return UserError(f"source {source_uri} holds no usable volume: {found}; {expected}")


def is_system_file(path: str) -> bool:
    """Returns whether a file is hidden or of an operating system."""
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return hidden or parts[-1].lower() in ("thumbs.db", "desktop.ini")


def hashed_name(name: str) -> str:
    """The first 16 hexadecimal digits of the sha256 of a name, in place of the name."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
