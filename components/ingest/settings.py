"""Settings of ingest."""

from pydantic import Field

from components.shared.config import Config
from components.shared.reading.layouts.settings import LayoutSettings
from components.shared.reading.scans import SizeLimits


class IngestSettings(Config):
    """Limits of ingest and its strictness.

    Attributes:
        strict: Whether one quarantined volume fails the ingest.
        max_file_mib: Largest file; a larger one quarantines its volume.
        max_volume_mib: Largest unpacked volume. Each process needs 2.5 times as much memory, and
            at least 1 GiB.
        max_archive_gib: Largest unpacked size of an archive.
        shard_volumes: Volumes that one pod reads, in the pipeline `ingestion`.
        layout: Which file of the source is what.
    """

    strict: bool = False
    max_file_mib: float = Field(default=64.0, gt=0, le=2048)
    max_volume_mib: float = Field(default=400.0, gt=0, le=2048)
    max_archive_gib: float = Field(default=64.0, gt=0)
    shard_volumes: int = Field(default=500, ge=1)
    layout: LayoutSettings = Field(default_factory=LayoutSettings)

    @property
    def limits(self) -> SizeLimits:
        """The limits of a volume."""
        return SizeLimits(self.max_file_mib, self.max_volume_mib)
