"""Settings of ingest."""

from pydantic import Field

from components.shared.config import Config


class IngestSettings(Config):
    """How strict the door is.

    Attributes:
        strict: Whether one quarantined volume makes the ingest fail.
        max_file_mib: A larger slice quarantines its volume.
        max_archive_gib: A .zip that unpacks to more is refused.
    """

    strict: bool = False
    max_file_mib: float = Field(default=64.0, gt=0)
    max_archive_gib: float = Field(default=64.0, gt=0)
