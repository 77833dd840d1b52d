"""Prediction of a shard: one of several pods that share the new cases of a source."""

import dataclasses
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.predict.cases import DigestedVolume, ReadCase, by_name, fingerprint
from components.predict.model import scored_threshold
from components.predict.page import VolumePrediction
from components.predict.planning import InferencePlan, open_cases
from components.predict.prediction import PredictTask, predict_scan
from components.predict.quality import QualityCheck
from components.predict.reference import find_training_data
from components.predict.settings import PredictSettings
from components.predict.stored import CaseRow, StoredPredictions
from components.shared.model.segmenter import load_segmenter
from components.shared.progress import track
from components.shared.reading.scans import Scan
from components.shared.reading.workers import Limits, Refused, run_in_workers
from components.shared.storage.store import Store
from components.shared.tracking.refusals import explaining_files

logger = logging.getLogger(__name__)


def predict_shard(
    plan: InferencePlan,
    store: Store,
    settings: PredictSettings,
    *,
    index: int,
    count: int,
    pipeline_run: str,
) -> None:
    """Predicts every `count`-th case of a plan: each mask is written, and then its row.

    A case that has a row is skipped: a shard that was killed repeats only its unfinished cases.

    Args:
        plan: Result of `plan_predictions`.
        store: Store of the predictions.
        settings: Settings of all shards.
        index: Number of the first case, below `count`.
        count: Number of shards.
        pipeline_run: Id of the pipeline run, for the rows.

    Raises:
        UserError: If the model, the source or the store cannot be used.
    """
    if not plan.cases[index::count]:
        return
    with open_cases(plan.source, settings) as (source, layout, listing):
        predictions, scans = StoredPredictions(store, plan.model), by_name(listing)
        marks = {name: fingerprint(source, layout, scan) for name, scan in scans.items()}
        seen = predictions.seen()
        wanted = [name for name in plan.cases[index::count] if marks.get(name) not in seen]
        if gone := [name for name in wanted if name not in scans]:
            logger.warning("%d planned cases are gone, e.g. %s", len(gone), gone[0])
        todo = [scans[name] for name in wanted if name in scans]
        if not todo:
            return
        with explaining_files():
            segmenter = load_segmenter(plan.model, settings.device)
        threshold = scored_threshold(plan.model, segmenter.threshold)
        task = PredictTask(segmenter, threshold, store, settings, source, layout)
        training = find_training_data(plan.model, store)
        quality = QualityCheck(segmenter, threshold, settings.quality, training)
        shard = _Shard(plan, predictions, task, quality, pipeline_run)
        read = ReadCase(source, layout, settings.limits)
        limits = Limits(memory_bytes=settings.limits.worker_bytes)
        volumes = run_in_workers(read, todo, workers=1, limits=limits)
        for scan, result in track(volumes, len(todo), "volumes"):
            shard.handle(scan, result, marks[scan.name.volume])


@dataclass(frozen=True)
class _Shard:
    plan: InferencePlan
    predictions: StoredPredictions
    task: PredictTask
    quality: QualityCheck
    pipeline_run: str

    def handle(self, scan: Scan, result: DigestedVolume | Refused, mark: str) -> None:
        name = scan.name.volume
        if isinstance(result, Refused):
            logger.warning("%s is not predicted: %s", name, result.reason)
            bad = VolumePrediction(volume=name, status="refused", reason=result.reason)
            self.predictions.write_row(self._row(scan, bad))
            return
        if not self.predictions.has_row(name, result.digest):
            row = self._predict(scan, result)
            self.predictions.write_row(row)
            if row.status == "refused":
                return
        self.predictions.mark_seen(mark, self.plan.source, name)

    def _predict(self, scan: Scan, case: DigestedVolume) -> CaseRow:
        name, started = scan.name.volume, time.monotonic()
        folder = self.predictions.case_folder(name, case.digest)
        task = dataclasses.replace(self.task, folder=folder)
        predicted = predict_scan(task, scan, case.volume, self.quality.measure)
        if predicted.status == "refused":
            return self._row(scan, predicted)
        return self._row(
            scan,
            predicted,
            **self.quality.columns,
            seconds=round(time.monotonic() - started, 3),
            threshold=task.threshold,
            digest=case.digest,
            mask=task.key(name, "mask"),
        )

    def _row(self, scan: Scan, predicted: VolumePrediction, **values: Any) -> CaseRow:  # noqa: ANN401 # of columns
        name = scan.name
        return CaseRow(
            **predicted.model_dump(),
            patient=name.patient,
            site=name.site,
            date=name.date,
            model=self.plan.model,
            source=self.plan.source,
            pipeline_run=self.pipeline_run,
            predicted_at=datetime.now(UTC),
            **values,
        )
