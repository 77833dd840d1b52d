"""Settings of ingest."""

from pydantic import Field

from components.shared.config import Config


class IngestSettings(Config):
    """How strict the door is.

    Attributes:
        strict: Whether one quarantined volume makes the ingest fail.
        max_file_mib: A larger slice quarantines its volume; at most 100, which a process's
            memory is counted with.
        max_archive_gib: A .zip that unpacks to more is refused.
    """

    strict: bool = False
    max_file_mib: float = Field(default=64.0, gt=0, le=100)
    max_archive_gib: float = Field(default=64.0, gt=0)
