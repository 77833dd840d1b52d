"""Radiogenomics: test shapes of tumours against genomic clusters."""

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def radiogenomics(
    store: str,
    dataset_id: str,
    manifest: dsl.Input[dsl.Dataset],
    pipeline_run: str,
    settings: str,
    report: dsl.Output[dsl.HTML],
    features: dsl.Output[dsl.Dataset],
) -> str:
    """Measures the shapes of expert and predicted masks, and tests them against clusters.

    Args:
        store: URI of the store with the voxels, and with the model's data set and split.
        dataset_id: Id of the data set version.
        manifest: List of volumes of the data set version, with the patient table.
        pipeline_run: Id of the pipeline run (`dsl.PIPELINE_JOB_ID_PLACEHOLDER`), used if the
            environment variable `KFP_RUN_ID` is not set.
        settings: YAML of `components.radiogenomics.settings.RadiogenomicsSettings`.
        report: HTML page.
        features: CSV, one row per mask.

    Returns:
        Id of the MLflow run.
    """
    from pathlib import Path

    from components.radiogenomics.settings import RadiogenomicsSettings
    from components.shared.config import parse_config
    from components.shared.dataset.manifest import read_manifest
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step
    from components.shared.storage.store import open_store

    with running_step("radiogenomics", store, pipeline_run=pipeline_run) as process:
        with importing():
            from components.radiogenomics.analysis import analyze_shapes

        return analyze_shapes(
            read_manifest(Path(manifest.path), dataset_id),
            parse_config(RadiogenomicsSettings, settings, "radiogenomics"),
            store=open_store(store),
            cache=process.cache,
            pipeline_run=process.pipeline_run,
            report=Path(report.path),
            features=Path(features.path),
        )
