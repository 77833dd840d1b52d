"""Radiogenomics step: shapes of tumours, and their association with genomic clusters."""

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.radiogenomics.model import AnalyzedModel, open_model
from components.radiogenomics.page import render_analysis
from components.radiogenomics.results import Masks, Measured, analyze, read_subtypes
from components.radiogenomics.settings import RadiogenomicsSettings
from components.radiogenomics.shape import FEATURES, measure_shape
from components.shared.dataset.manifest import Manifest, VolumeEntry
from components.shared.dataset.parts import open_volume
from components.shared.dataset.volumes import Mask
from components.shared.progress import track
from components.shared.scoring.decision import find_tumour
from components.shared.storage.store import Store
from components.shared.tracking.identity import Training
from components.shared.tracking.refusals import explaining
from components.shared.tracking.runs import log_dataset, log_metrics, log_params, recording
from components.shared.tracking.tree import end_pipeline_run, open_run

logger = logging.getLogger(__name__)

_LABEL = "radiogenomics"


@explaining()
def analyze_shapes(
    manifest: Manifest,
    settings: RadiogenomicsSettings,
    *,
    store: Store,
    cache: Path,
    pipeline_run: str,
    report: Path,
    features: Path,
) -> str:
    """Measures expert and predicted masks, and tests them against genomic clusters.

    Expert masks are those of all patients. Masks are predicted of patients only that the model
    has not seen. A repeated call writes the same results to the same MLflow run.

    Args:
        manifest: Data set with labels and a patient table.
        settings: Settings of the step.
        store: Store with the voxels, and with the model's data set and split.
        cache: Folder for fetched volumes.
        pipeline_run: Identity of the pipeline run.
        report: HTML file to write.
        features: CSV file to write a row for each mask to.

    Returns:
        Id of the MLflow run, a child of the pipeline run's.

    Raises:
        UserError: If model, data set or the MLflow server cannot be used.
    """
    subtypes = read_subtypes(manifest, settings.subtypes)
    model = None if settings.model == "none" else open_model(settings, manifest, store)
    run_id = _open_run(manifest, settings, model, pipeline_run)
    with recording(run_id) as client:
        measured = list(_measure(manifest, model, store, cache))
        found = analyze(measured, subtypes, has_model=model is not None)
        page = render_analysis(found, _origin(manifest, model, run_id))
        report.write_text(page, encoding="utf-8")
        table = _table(measured)
        features.write_text(table, encoding="utf-8")
        log_dataset(client, run_id, manifest, store.uri)
        log_params(client, run_id, {"radiogenomics": _parameters(settings, model)})
        log_metrics(client, run_id, found.metrics)
        client.log_text(run_id, page, "radiogenomics/report.html")
        client.log_text(run_id, table, "radiogenomics/features.csv")
        end_pipeline_run(client, run_id, store)
    for feature, one in found.agreement.items():
        logger.info("%s: ICC %s over %d unseen patients", feature, one.icc, one.patients)
    return run_id


def _open_run(
    manifest: Manifest,
    settings: RadiogenomicsSettings,
    model: AnalyzedModel | None,
    pipeline_run: str,
) -> str:
    identity = Training(
        pipeline_run=pipeline_run,
        label=_LABEL,
        dataset_id=manifest.dataset_id,
        split_id=model.split_id if model else "",
        recipe=_parameters(settings, model),
    )
    return open_run(identity, name="", run_name=_LABEL)


def _parameters(settings: RadiogenomicsSettings, model: AnalyzedModel | None) -> dict[str, object]:
    return {**settings.model_dump(mode="json"), "model": model.uri if model else "none"}


def _origin(manifest: Manifest, model: AnalyzedModel | None, run_id: str) -> str:
    named = f"model {model.uri}" if model else "expert masks only"
    return f"data set {manifest.dataset_id}, {named}, MLflow run {run_id}"


def _measure(
    manifest: Manifest, model: AnalyzedModel | None, store: Store, cache: Path
) -> Iterator[Measured]:
    for entry in track(manifest.volumes, len(manifest.volumes), "volumes"):
        volume = open_volume(manifest, entry, store, cache)
        is_unseen = model is not None and entry.volume in model.unseen
        yield _measured(entry, "expert", volume.truth[0], is_unseen=is_unseen)
        if model and is_unseen:
            segmenter = model.segmenter
            probability = segmenter(volume.image, entry.volume, volume.channels)[0]
            mask = find_tumour(probability, model.threshold, segmenter.min_component_fraction)
            yield _measured(entry, "predicted", mask, is_unseen=True)


def _measured(entry: VolumeEntry, masks: Masks, mask: Mask, *, is_unseen: bool) -> Measured:
    spacing = entry.geometry.spacing_mm if entry.geometry else (1.0, 1.0, 1.0)
    return Measured(
        volume=entry.volume,
        patient=entry.patient,
        masks=masks,
        is_unseen=is_unseen,
        features=measure_shape(mask, spacing),
    )


def _table(measured: Sequence[Measured]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("volume", "patient", "masks", "unseen", *FEATURES))
    for one in measured:
        row = (one.volume, one.patient, one.masks, int(one.is_unseen))
        table.writerow((*row, *(one.features[feature] for feature in FEATURES)))
    return text.getvalue()
