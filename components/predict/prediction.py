"""Predict step: masks, a table and a page of new patients."""

import csv
import functools
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.predict.model import scored_threshold
from components.predict.page import (
    TargetSize,
    VolumePrediction,
    render_predictions,
    take_snapshot,
)
from components.predict.settings import PredictSettings
from components.shared.config import Record
from components.shared.dataset.ingest_account import Quarantined
from components.shared.dataset.volumes import Mask, Probability, Volume
from components.shared.errors import UserError
from components.shared.model.segmenter import Segmenter, VolumeRefusedError, load_segmenter
from components.shared.progress import track
from components.shared.reading.layouts.layout import Layout
from components.shared.reading.layouts.opening import open_layout
from components.shared.reading.scans import BadScanError, Scan
from components.shared.reading.sources.opening import open_source
from components.shared.reading.sources.source import Source
from components.shared.reading.workers import Limits, Refused, run_in_workers
from components.shared.report.page import Picture
from components.shared.scoring.decision import decision_text, find_targets
from components.shared.storage.store import FolderStore, Store
from components.shared.tracking.champion import resolve_model
from components.shared.tracking.refusals import explaining_files

logger = logging.getLogger(__name__)

_MASK, _PROBABILITY = "mask", "probability"
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

    Writes a mask of each volume in the form of its files, `predictions.csv` and
    `predictions.html`. A mask is `VOLUME_mask.tif` (uint8, 0 or 255, one page per slice, in
    order), `VOLUME_mask.nii.gz` (uint8, 0 or 1, on the grid of the reference channel) or
    `VOLUME_mask.dcm` (DICOM-SEG). Several targets are segments of the DICOM-SEG; else they are
    painted in their order with the values 1, 2, ..., each over those before it. A volume that
    cannot be read has its reason in the table and no mask, even if an earlier call wrote one. Two
    volumes are in memory at a time: the one that is predicted and the next one, which a process
    reads. Files are written atomically.

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
        layout = open_layout(settings.layout, source, with_labels=False)
        listing = layout.list_scans(source)
        uri = resolve_model(model, settings.model_name)
        with explaining_files():
            segmenter = load_segmenter(uri, settings.device)
        threshold = scored_threshold(uri, segmenter.threshold)
        folder = FolderStore(output)
        task = PredictTask(segmenter, threshold, folder, settings, source, layout)
        snapshots: list[Picture] = []

        def photograph(name: str, volume: Volume, _: Probability, masks: Mask) -> None:
            if len(snapshots) < settings.most_pictures:
                shown = replace(volume, targets=segmenter.targets)
                snapshots.append(take_snapshot(name, shown, masks))

        work = functools.partial(layout.read_scan, source, limits=settings.limits)
        limits = Limits(memory_bytes=settings.limits.worker_bytes)
        volumes = run_in_workers(work, listing.scans, workers=1, limits=limits)
        predicted = [
            predict_scan(task, scan, volume, photograph)
            for scan, volume in track(volumes, len(listing.scans), "volumes")
        ]
    refused = [refuse_scan(task, bad.volume, bad.reason) for bad in listing.quarantined]
    rows = sorted([*predicted, *refused], key=lambda row: row.volume)
    _write_table(rows, task, folder)
    _require_predictions(rows, layout, source_uri, folder)
    result = _result(uri, source_uri, threshold, folder, rows)
    decision = decision_text(threshold, segmenter.min_component_fraction)
    reference = layout.channels.reference
    page = render_predictions(uri, source_uri, rows, snapshots, decision, reference, task.targets)
    folder.write(_PAGE, page.encode())
    return result


@dataclass(frozen=True)
class PredictTask:
    """A model at its threshold, an open source, and the place of the results.

    Attributes:
        output: Store that receives masks.
        folder: Folder of the masks in it, ending in `/`; empty for the top.
    """

    segmenter: Segmenter
    threshold: float
    output: Store
    settings: PredictSettings
    source: Source
    layout: Layout
    folder: str = ""

    @property
    def targets(self) -> list[str]:
        """Names of the model's targets."""
        # a model of one target may be of a version that did not store its name
        known, is_single = self.segmenter.targets, len(self.segmenter.targets) == 1
        return [target.name for target in (self.layout.targets[:1] if is_single else known)]

    @property
    def kinds(self) -> list[str]:
        """Kinds of results, in the names of files: a mask, and the probability of each target."""
        if len(self.targets) == 1:
            return [_MASK, _PROBABILITY]
        return [_MASK, *(f"{_PROBABILITY}_{target}" for target in self.targets)]

    def write(self, scan: Scan, masks: Mask, probability: Probability) -> None:
        """Writes masks, and probabilities if they are wanted, in the form of the scan's files."""
        mask, *kinds = self.kinds
        self._write(scan, mask, masks.view(np.uint8), self.targets)
        if self.settings.probabilities:
            for kind, target, one in zip(kinds, self.targets, probability, strict=True):
                self._write(scan, kind, one[None], [target])

    def _write(
        self,
        scan: Scan,
        kind: str,
        voxels: npt.NDArray[np.uint8 | np.float32],
        targets: Sequence[str],
    ) -> None:
        encoded = self.layout.encode_mask(self.source, scan, voxels, targets)
        self.output.write(self.key(scan.name.volume, kind), encoded)

    def key(self, volume: str, kind: str) -> str:
        """Key of a result."""
        return f"{self.folder}{volume}_{kind}{self.layout.mask_suffix}"


def predict_scan(
    task: PredictTask,
    scan: Scan,
    volume: Volume | Refused,
    watch: Callable[[str, Volume, Probability, Mask], None],
) -> VolumePrediction:
    """Predicts a scan that was read, and writes its mask.

    Args:
        task: Model, source and place of the mask.
        scan: Files of the volume.
        volume: Its voxels, or the reason why it cannot be read.
        watch: Called with name, volume, probability and mask of each target before the row is
            made.
    """
    name = scan.name.volume
    if isinstance(volume, Refused):
        return refuse_scan(task, name, volume.reason)
    try:
        probability = task.segmenter(volume.image, name, volume.channels)
        masks = find_targets(probability, task.threshold, task.segmenter.min_component_fraction)
        task.write(scan, masks, probability)
    except (VolumeRefusedError, BadScanError) as error:
        return refuse_scan(task, name, getattr(error, "reason", str(error)))
    watch(name, volume, probability, masks)
    first, *further = [_size(mask, volume) for mask in masks]
    return VolumePrediction(
        volume=name,
        slices=masks.shape[1],
        tumour_pixels=first.tumour_pixels,
        tumour_slices=int(masks[0].any(axis=(1, 2)).sum()),
        tumour_ml=first.tumour_ml,
        mean_probability=float(probability[0].mean(dtype=np.float64)),
        max_probability=float(probability[0].max()),
        further=dict(zip(task.targets[1:], further, strict=True)),
    )


def _size(mask: Mask, volume: Volume) -> TargetSize:
    pixels, geometry = int(mask.sum()), volume.geometry
    return TargetSize(
        tumour_pixels=pixels, tumour_ml=geometry and round(pixels * geometry.voxel_ml, 3)
    )


def refuse_scan(task: PredictTask, volume: str, reason: str) -> VolumePrediction:
    """Returns the row of a volume without a mask, and removes the mask of an earlier call."""
    logger.warning("%s is not predicted: %s", volume, reason)
    for kind in task.kinds:
        task.output.delete(task.key(volume, kind))  # results of an earlier call must not remain
    return VolumePrediction(volume=volume, status="refused", reason=reason)


def _write_table(rows: Sequence[VolumePrediction], task: PredictTask, output: FolderStore) -> None:
    table = io.StringIO()
    has_ml = any(row.tumour_ml is not None for row in rows)
    columns = [
        name
        for name in VolumePrediction.columns(task.targets[1:])
        if has_ml or not name.endswith("tumour_ml")
    ]
    writer = csv.DictWriter(table, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(row.cells() for row in rows)
    output.write(_TABLE, table.getvalue().encode())


def _require_predictions(
    rows: Sequence[VolumePrediction], layout: Layout, source_uri: str, output: FolderStore
) -> None:
    refused = [Quarantined(row.volume, row.reason, ()) for row in rows if row.status == "refused"]
    if len(refused) == len(rows):
        output.delete(_PAGE)  # a page of an earlier call
        reasons = layout.nothing_accepted(source_uri, refused)
        raise UserError(f"{reasons}; all reasons are in {output.root / _TABLE}")


def _result(
    model: str,
    source_uri: str,
    threshold: float,
    output: FolderStore,
    rows: Sequence[VolumePrediction],
) -> PredictResult:
    failed = sum(row.status == "refused" for row in rows)
    return PredictResult(
        model=model,
        threshold=threshold,
        source=source_uri,
        predicted=len(rows) - failed,
        failed=failed,
        predictions=output.root / _TABLE,
        report=output.root / _PAGE,
        volumes=tuple(rows),
    )
