"""The account of an ingest: every file of its source, accepted, quarantined or ignored."""

from dataclasses import dataclass

from components.shared.config import Record


@dataclass(frozen=True)
class Quarantined:
    """A volume that was not accepted, with all its files."""

    volume: str
    reason: str
    files: tuple[str, ...]


class IngestAccount(Record):
    """The account of one ingest.

    The files found are those accepted, those of the quarantined volumes and those ignored.

    Attributes:
        source: Source of the patients.
        dataset_id: The version that was published; empty if none was.
        volumes: Accepted volumes.
        slices: Slices of the accepted volumes.
        tumour_slices: Slices of the accepted volumes with tumour.
        quarantined: Volumes that were refused, each with its reason and all its files.
        ignored: Number of other files by the rule that says why.
        files_found: All files of the source.
        files_accepted: Files of the accepted volumes.
        objects_written: Volumes that the store did not hold before.
        bytes_written: Bytes of those volumes.
        warnings: Irregularities of `data.csv`, one sentence each.
    """

    source: str
    dataset_id: str
    volumes: int
    slices: int
    tumour_slices: int
    quarantined: tuple[Quarantined, ...]
    ignored: dict[str, int]
    files_found: int
    files_accepted: int
    objects_written: int
    bytes_written: int
    warnings: tuple[str, ...]

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
