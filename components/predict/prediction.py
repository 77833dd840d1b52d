"""Predict step: masks, a table and a page of new patients."""

import csv
import functools
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from components.predict.model import scored_threshold
from components.predict.page import VolumePrediction, render_predictions, take_snapshot
from components.predict.settings import PredictSettings
from components.shared.config import Record
from components.shared.dataset.channels import LGG_CHANNELS
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.volumes import Mask, Volume
from components.shared.errors import UserError
from components.shared.model.segmenter import Segmenter, VolumeRefusedError, load_segmenter
from components.shared.progress import track
from components.shared.reading.scans import list_scans, nothing_accepted, read_scan
from components.shared.reading.sources.opening import open_source
from components.shared.reading.workers import Refused, run_in_workers
from components.shared.report.page import Picture
from components.shared.scoring.decision import decision_text, find_tumour
from components.shared.storage.store import FolderStore
from components.shared.tracking.champion import resolve_model
from components.shared.tracking.refusals import explaining_files

logger = logging.getLogger(__name__)

_TABLE = "predictions.csv"
_PAGE = "predictions.html"


class PredictResult(Record):
    """Result of `predict_source`.

    Attributes:
        model: URI of the model, with the champion's version.
        threshold: Probability from which a pixel is tumour, as in the model's evaluation.
        source: URI of the volumes' source.
        predicted: Number of volumes with a mask.
        failed: Number of volumes without a mask.
        predictions: CSV file with the table.
        report: HTML file with the page.
        volumes: All volumes, sorted by name.
    """

    model: str
    threshold: float
    source: str
    predicted: int
    failed: int
    predictions: Path
    report: Path
    volumes: tuple[VolumePrediction, ...]


def predict_source(
    model: str, source_uri: str, output: Path, settings: PredictSettings
) -> PredictResult:
    """Predicts every volume of a source, with or without masks of its own.

    Writes `VOLUME_mask.tif` (uint8, 0 or 255, one page per slice, in order), `predictions.csv`
    and `predictions.html`. A volume that cannot be read has its reason in the table and no mask,
    even if an earlier call wrote one. Two volumes are in memory at a time: the one that is
    predicted and the next one, which a process reads. Files are written atomically.

    Args:
        model: `champion`, an MLflow URI or a model folder.
        source_uri: URI of the source, see `components.shared.reading.sources.opening.open_source`.
        output: Folder for the files, which is created if it does not exist.
        settings: Settings of the step.

    Raises:
        UserError: If the model or the source cannot be used, no volume can be read (the table
            has the reasons even then), or the folder cannot be written.
    """
    with open_source(source_uri, settings.max_archive_gib) as source:
        listing = list_scans(source)
        uri = resolve_model(model, settings.model_name)
        with explaining_files():
            segmenter = load_segmenter(uri, settings.device)
        threshold = scored_threshold(uri, segmenter.threshold)
        task = _Task(segmenter, threshold, FolderStore(output), settings)
        snapshots: list[Picture] = []
        work = functools.partial(
            read_scan, source, max_file_mib=settings.max_file_mib, with_masks=False
        )
        volumes = run_in_workers(work, listing.scans, workers=1)
        predicted = [
            _predict_or_refuse(task, scan.name.volume, volume, snapshots)
            for scan, volume in track(volumes, len(listing.scans), "volumes")
        ]
    refused = [_refuse(task, bad.volume, bad.reason) for bad in listing.quarantined]
    rows = sorted([*predicted, *refused], key=lambda row: row.volume)
    _write_table(rows, task.output)
    _require_predictions(rows, source_uri, task.output)
    result = _result(uri, source_uri, task, rows)
    decision = decision_text(threshold, segmenter.min_component_fraction)
    channel = LGG_CHANNELS.reference
    page = render_predictions(uri, source_uri, rows, snapshots, decision, channel)
    task.output.write(_PAGE, page.encode())
    return result


@dataclass(frozen=True)
class _Task:
    segmenter: Segmenter
    threshold: float
    output: FolderStore
    settings: PredictSettings


def _predict_or_refuse(
    task: _Task, name: str, volume: Volume | Refused, snapshots: list[Picture]
) -> VolumePrediction:
    if isinstance(volume, Refused):
        return _refuse(task, name, volume.reason)
    try:
        probability = task.segmenter(volume.image, name)
    except VolumeRefusedError as error:
        return _refuse(task, name, error.reason)
    mask = find_tumour(probability, task.threshold, task.segmenter.min_component_fraction)
    task.output.write(_mask_key(name), _encode_mask(mask))
    if len(snapshots) < task.settings.most_pictures:
        snapshots.append(take_snapshot(name, volume, mask))
    return VolumePrediction(
        volume=name,
        slices=len(mask),
        tumour_pixels=int(mask.sum()),
        tumour_slices=int(mask.any(axis=(1, 2)).sum()),
        mean_probability=float(probability.mean(dtype=np.float64)),
        max_probability=float(probability.max()),
    )


def _refuse(task: _Task, volume: str, reason: str) -> VolumePrediction:
    logger.warning("%s is not predicted: %s", volume, reason)
    task.output.delete(_mask_key(volume))  # a mask of an earlier call must not remain
    return VolumePrediction(volume=volume, status="refused", reason=reason)


def _encode_mask(mask: Mask) -> bytes:
    """Encodes a mask as TIFF: uint8, 0 or 255, one page per slice."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as tiff:
        for pixels in mask:
            tiff.write(
                pixels * np.uint8(255),
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                contiguous=False,
            )
    return stream.getvalue()


def _mask_key(volume: str) -> str:
    return f"{volume}_mask.tif"


def _write_table(rows: Sequence[VolumePrediction], output: FolderStore) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(VolumePrediction.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    output.write(_TABLE, table.getvalue().encode())


def _require_predictions(
    rows: Sequence[VolumePrediction], source_uri: str, output: FolderStore
) -> None:
    refused = [Quarantined(row.volume, row.reason, ()) for row in rows if row.status == "refused"]
    if len(refused) == len(rows):
        output.delete(_PAGE)  # a page of an earlier call
        reasons = nothing_accepted(source_uri, refused)
        raise UserError(f"{reasons}; all reasons are in {output.root / _TABLE}")


def _result(
    model: str, source_uri: str, task: _Task, rows: Sequence[VolumePrediction]
) -> PredictResult:
    failed = sum(row.status == "refused" for row in rows)
    return PredictResult(
        model=model,
        threshold=task.threshold,
        source=source_uri,
        predicted=len(rows) - failed,
        failed=failed,
        predictions=task.output.root / _TABLE,
        report=task.output.root / _PAGE,
        volumes=tuple(rows),
    )
