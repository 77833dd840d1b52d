"""Settings of ingest."""

from pydantic import Field

from components.shared.config import Config


class IngestSettings(Config):
    """Limits of ingest and its strictness.

    Attributes:
        strict: Whether one quarantined volume fails the ingest.
        max_file_mib: Largest slice; a larger one quarantines its volume. At most 100, so that a
            volume fits the memory of a worker process.
        max_archive_gib: Largest unpacked size of an archive.
    """

    strict: bool = False
    max_file_mib: float = Field(default=64.0, gt=0, le=100)
    max_archive_gib: float = Field(default=64.0, gt=0)
