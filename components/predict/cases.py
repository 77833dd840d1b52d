"""Cases of a source: their state in the listing, and voxels with the digest of their files."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from components.shared.dataset.manifest import canonical_json
from components.shared.dataset.volumes import Volume
from components.shared.reading.layouts.layout import Layout
from components.shared.reading.scans import Listing, Scan, SizeLimits
from components.shared.reading.sources.source import Source, SourceFile


def fingerprint(source: Source, layout: Layout, scan: Scan) -> str:
    """Digest of what a listing shows of a case: equal ones need not be read again.

    It changes with the source's URI, the layout, and path, size and version of each file, which
    is the ETag in a bucket, the time of the last change in a folder and the CRC in an archive.
    """
    files = sorted((f.path, f.size, f.version) for copy in scan.copies for f in copy)
    return hashlib.sha256(canonical_json([source.uri, repr(layout), files])).hexdigest()


def by_name(listing: Listing) -> dict[str, Scan]:
    """The scans of a listing by name, without those that share one."""
    count = _count(listing)
    return {scan.name.volume: scan for scan in listing.scans if count[scan.name.volume] == 1}


def refusals(listing: Listing) -> dict[str, str]:
    """Reasons of the cases that cannot be predicted, by name, before any is read."""
    bad = {each.volume: each.reason for each in listing.quarantined}
    doubled = {name: count for name, count in _count(listing).items() if count > 1}
    return bad | {name: f"{count} cases have this name" for name, count in doubled.items()}


@dataclass(frozen=True)
class DigestedVolume:
    """A case in memory.

    Attributes:
        volume: Its voxels.
        digest: sha256 of the voxels and of all files that were read for them.
    """

    volume: Volume
    digest: str


@dataclass(frozen=True)
class ReadCase:
    """Reads one case; can be sent to another process."""

    source: Source
    layout: Layout
    limits: SizeLimits

    def __call__(self, scan: Scan) -> DigestedVolume:
        source = _Recording(self.source)
        volume = self.layout.read_scan(source, scan, self.limits)
        return DigestedVolume(volume, _digest(volume, source.digests))


@dataclass(frozen=True)
class _Recording:
    """A source that keeps the digests of the files that were read."""

    source: Source
    digests: dict[str, bytes] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return self.source.uri

    @property
    def name(self) -> str:
        return self.source.name

    def files(self) -> list[SourceFile]:
        return self.source.files()

    def read(self, path: str) -> bytes:
        data = self.source.read(path)
        self.digests[path] = hashlib.sha256(data).digest()
        return data


def _digest(volume: Volume, files: Mapping[str, bytes]) -> str:
    # the files too: a mask has their position in space and, as DICOM, their identifiers
    image = np.ascontiguousarray(volume.image)
    digest = hashlib.sha256(f"{image.shape} {image.dtype.name}".encode())
    digest.update(image.data.cast("B"))
    for each in sorted(files.values()):
        digest.update(each)
    return digest.hexdigest()


def _count(listing: Listing) -> Counter[str]:
    return Counter(scan.name.volume for scan in listing.scans)
