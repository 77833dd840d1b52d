"""Predictions of a model version in the store.

    predictions/MODEL/VERSION/version.json                   the version's origin in MLflow
    predictions/MODEL/VERSION/cases/CASE/DIGEST/CASE_mask.*  a mask
    predictions/MODEL/VERSION/cases/CASE/DIGEST/row.json     its row, written after the mask
    predictions/MODEL/VERSION/seen/FINGERPRINT               written last: need not be read again
    predictions/MODEL/VERSION/refused/DIGEST.json            a case without a mask
    predictions/MODEL/VERSION/predictions.parquet            all rows
    predictions/MODEL/VERSION/report.html                    a page of them

Folders of masks are named by the content of the case, and a version predicts equal content equally.
So runs that meet write the same bytes, and a killed one is continued.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from pydantic import AwareDatetime

from components.predict.page import VolumePrediction
from components.shared.dataset.manifest import canonical_json, short_digest
from components.shared.errors import UserError
from components.shared.storage.store import Store

PREDICTIONS = "predictions/"
TABLE, PAGE = "predictions.parquet", "report.html"

_READERS = 16  # rows are small: the time of an S3 request is that of waiting


class CaseRow(VolumePrediction):
    """A case in the table of predictions.

    Attributes:
        patient: The person.
        site: The institution.
        date: Day of the scan, `yyyymmdd`; empty if unknown.
        confidence: Mean probability of the predicted pixels; `None` where there are none.
        mean_entropy: Mean entropy of the predicted pixels in bits.
        components: Number of connected parts of the prediction.
        largest_component_fraction: Fraction of the predicted pixels in the largest part.
        flip_disagreement: 1 - Dice of the masks of the volume and of its mirror image.
        intensity_score: Largest robust z-score of the intensities among the training volumes.
        flags: Names of the quality checks that the case has failed.
        seconds: Time of the prediction, without reading the case.
        model: URI of the model version.
        threshold: Probability from which a pixel is tumour.
        digest: sha256 of the case's voxels and files.
        mask: Key of the mask in the store.
        source: URI of the source.
        pipeline_run: Id of the pipeline run.
        predicted_at: Time of the row.
    """

    patient: str = ""
    site: str = ""
    date: str = ""
    confidence: float | None = None
    mean_entropy: float | None = None
    flip_disagreement: float | None = None
    intensity_score: float | None = None
    components: int | None = None
    largest_component_fraction: float | None = None
    flags: tuple[str, ...] = ()
    seconds: float | None = None
    model: str
    threshold: float | None = None
    digest: str = ""
    mask: str = ""
    source: str
    pipeline_run: str
    predicted_at: AwareDatetime


class StoredPredictions:
    """Predictions of one model version.

    Attributes:
        store: Store of all predictions.
        folder: Folder of the version, ending in `/`.
    """

    def __init__(self, store: Store, model: str) -> None:
        self.store = store
        self.folder = version_folder(model)

    def claim(self, origin: str) -> None:
        """Records the origin of the version.

        Args:
            origin: Id of the version's MLflow run, or the address of its files.

        Raises:
            UserError: If predictions of another version with this name and number are here.
        """
        key = f"{self.folder}version.json"
        mine = canonical_json({"origin": origin})
        if not self.store.exists(key):
            self.store.write(key, mine)
        elif (found := self.store.read(key)) != mine:
            raise UserError(
                f"{self.store.uri}/{self.folder} holds predictions of another model with this name "
                f"and number, {found.decode()}, not {mine.decode()}; move that folder away, or use "
                "another store"
            )

    def seen(self) -> set[str]:
        """Fingerprints of the cases that have a row."""
        return {key.rpartition("/")[2] for key in self.store.keys(f"{self.folder}seen/")}

    def mark_seen(self, fingerprint: str, source: str, volume: str) -> None:
        """Records that a case with this fingerprint has a row and is no longer refused."""
        self.store.write(f"{self.folder}seen/{fingerprint}", b"")
        self.store.delete(self._refused_key(source, volume))

    def case_folder(self, volume: str, digest: str) -> str:
        """Folder of a case's mask and row, ending in `/`."""
        return f"{self.folder}cases/{volume}/{digest[:16]}/"

    def has_row(self, volume: str, digest: str) -> bool:
        """Returns whether a case with this content was predicted."""
        return self.store.exists(f"{self.case_folder(volume, digest)}row.json")

    def write_row(self, row: CaseRow) -> None:
        """Stores the row of a predicted case, whose mask is there, or of a refused one."""
        if row.status == "refused":
            self.store.write(self._refused_key(row.source, row.volume), _json(row))
        elif not self.has_row(row.volume, row.digest):  # of two runs that meet, the first counts
            self.store.write(f"{self.case_folder(row.volume, row.digest)}row.json", _json(row))

    def rows(self) -> list[CaseRow]:
        """All rows, sorted by case and time."""
        found = [*self._read("cases/", r".+/row\.json"), *self._read("refused/", r".+\.json")]
        return sorted(found, key=lambda row: (row.volume, row.predicted_at, row.digest))

    def forget_refusals(self, is_old: Callable[[CaseRow], bool]) -> None:
        """Removes rows of refused cases for which `is_old` returns True."""
        for row in self._read("refused/", r".+\.json"):
            if is_old(row):
                self.store.delete(self._refused_key(row.source, row.volume))

    def _read(self, folder: str, form: str) -> Iterator[CaseRow]:
        keys = [key for key in self.store.keys(f"{self.folder}{folder}") if re.fullmatch(form, key)]
        with ThreadPoolExecutor(_READERS) as pool:
            yield from map(CaseRow.model_validate_json, pool.map(self.store.read, keys))

    def _refused_key(self, source: str, volume: str) -> str:
        return f"{self.folder}refused/{short_digest(canonical_json([source, volume]))}.json"


def version_folder(model: str) -> str:
    """Folder of a model version's predictions, ending in `/`.

    Args:
        model: URI `models:/name/version`.

    Raises:
        UserError: If it is another URI.
    """
    match = re.fullmatch(r"models:/([^/.][^/]*)/([0-9]+)", model)
    if match is None:
        raise UserError(
            f"predictions in the store belong to a registered version, not {model!r}; give "
            "champion or models:/NAME/VERSION, or use `brainseg predict` for other models"
        )
    return f"{PREDICTIONS}{quote(match[1], safe=' ')}/{match[2]}/"


def _json(row: CaseRow) -> bytes:
    return row.model_dump_json().encode()
