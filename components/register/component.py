"""Register: compare a model with the champion on the same patients, and promote or reject it."""

from typing import NamedTuple

from kfp import dsl

from components.shared.step import trainer_step


@trainer_step
def register(
    store: str,
    dataset_id: str,
    split_id: str,
    mlflow_run_id: str,
    manifest: dsl.Input[dsl.Dataset],
    split: dsl.Input[dsl.Artifact],
    model: dsl.Input[dsl.Model],
    per_patient: dsl.Input[dsl.Dataset],
    metrics: dsl.Input[dsl.Metrics],
    settings: str,
    decision: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple(  # type: ignore[valid-type] # KFP reads the outputs from this very form
    "Registration",
    [("model_uri", str), ("model_version", str), ("promoted", bool), ("reason", str)],
):
    """Registers a model, and moves the alias champion to it unless it is inferior.

    The decision is a test of non-inferiority against the champion on the same patients. Every
    champion, including the first, must reach a floor.

    Args:
        store: URI of the store with the voxels: `s3://bucket/prefix` or a local folder.
        dataset_id: Id of the data set version.
        split_id: Id of the split.
        mlflow_run_id: MLflow run of the training run; this step ends it and the pipeline run's.
        manifest: List of volumes of the data set version.
        split: JSON with the volumes of each part.
        model: MLflow model folder with the exported segmenter.
        per_patient: CSV with the model's scores of the test patients.
        metrics: JSON with the metrics over the test patients.
        settings: YAML of `components.register.settings.RegisterSettings`.
        decision: JSON with decision, reason and numbers.
        report: HTML page about the decision.

    Returns:
        URI and number of the registered version, whether it was promoted, and the reason.
    """
    from pathlib import Path

    from components.register.settings import RegisterSettings
    from components.shared.config import parse_config
    from components.shared.dataset.parts import SplitDataset
    from components.shared.process import importing
    from components.shared.storage.outcome import running_step

    with running_step("register", store) as process:
        with importing():
            from components.register.registration import Candidate, register_model

        found = register_model(
            Candidate.read(
                run_id=mlflow_run_id,
                folder=Path(model.path),
                per_patient=Path(per_patient.path),
                metrics=Path(metrics.path),
            ),
            SplitDataset.open(
                store=store,
                cache=process.cache,
                dataset_id=dataset_id,
                split_id=split_id,
                manifest=manifest.path,
                split=split.path,
            ),
            parse_config(RegisterSettings, settings, "register"),
            decision=Path(decision.path),
            report=Path(report.path),
        )
    return found.model_uri, found.model_version, found.promoted, found.reason
