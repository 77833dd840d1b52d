"""The account of an ingest."""

from dataclasses import dataclass

from pydantic import Field

from components.shared.config import Record


@dataclass(frozen=True)
class Quarantined:
    """A volume that was not accepted, with all its files."""

    volume: str
    reason: str
    files: tuple[str, ...]


class IngestAccount(Record):
    """Counts of every file of a source, accepted, quarantined or ignored.

    Attributes:
        source: URI of the source.
        dataset_id: Id of the published version; empty if none was published.
        volumes: Accepted volumes, to which also slices and accepted files are counted.
        quarantined: Refused volumes.
        ignored: Number of other files by the rule that ignores them.
        objects_written: Volumes that the store did not hold before.
        warnings: Irregularities of the table, one sentence each.
    """

    source: str
    dataset_id: str
    volumes: int
    slices: int
    tumour_slices: int
    quarantined: tuple[Quarantined, ...] = ()
    ignored: dict[str, int] = Field(default_factory=dict)
    files_found: int = 0
    files_accepted: int = 0
    objects_written: int = 0
    bytes_written: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def files_quarantined(self) -> int:
        """Files of the quarantined volumes."""
        return sum(len(bad.files) for bad in self.quarantined)

    def accounting(self) -> str:
        """The sentence that accounts for every file."""
        return (
            f"{self.files_found} files found = {self.files_accepted} in {self.volumes} accepted "
            f"volumes + {self.files_quarantined} in {len(self.quarantined)} quarantined volumes "
            f"+ {sum(self.ignored.values())} ignored"
        )
