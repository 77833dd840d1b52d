"""Versions, decisions and aliases in the MLflow model registry."""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.register.record import DecisionRecord
from components.shared.dataset.manifest import canonical_json, short_digest
from components.shared.errors import UserError
from components.shared.storage.store import file_digest
from components.shared.tracking.champion import CHAMPION, DECISION_TAG, find_champion
from components.shared.tracking.refusals import explaining_files

logger = logging.getLogger(__name__)

CHALLENGER = "challenger"

_DIGEST_TAG = "model_digest"
_BEFORE_TAG = "champion_before"  # champion that this version was compared with or replaced
_PATIENTS_TAG = "compared_patients"  # digest of the volumes of the comparison
_NONE = "none"
_APPLIED_TAG = "decision_applied"


def add_version(
    client: MlflowClient,
    name: str,
    run_id: str,
    folder: Path,
    tags: Mapping[str, str],
    metrics: Collection[str],
) -> ModelVersion:
    """Registers a model folder, byte for byte, as a version of `name`.

    Repeated calls register the same folder of the same run once. The registered model is created
    if it is new.

    Args:
        client: Client of the tracking server.
        name: Name of the registered model.
        run_id: MLflow run that trained the model; its page will link to the version.
        folder: MLflow model folder.
        tags: Tags of the version.
        metrics: Names of the run's metrics that describe the model.

    Raises:
        UserError: If the server has different bytes than the folder.
    """
    digest = folder_digest(folder)
    _ensure_model(client, name)
    query = f"name = '{name}' and run_id = '{run_id}'"
    for version in client.search_model_versions(query):
        if version.tags.get(_DIGEST_TAG) == digest:
            return version
    model = _upload(client, run_id, folder, digest)
    _link_metrics(client, run_id, model.model_id, metrics)
    _check_upload(model.model_id, digest)
    version = client.create_model_version(
        name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        model_id=model.model_id,
        tags={**tags, _DIGEST_TAG: digest},
    )
    # links the run to the version; a server writes this itself, a local file does not
    link = json.dumps([{"name": name, "version": int(version.version)}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})
    return version


def count_decisions(
    client: MlflowClient, version: ModelVersion, champion: str, patients: Collection[str]
) -> tuple[int, int]:
    """Counts the versions that were compared with a champion before this one.

    Every comparison reuses the patients, and a choice among many is partly a choice by luck.

    Returns:
        Number of these versions, and of those compared on exactly the same patients (`patients`
        are the volumes of this comparison).
    """
    found = [
        other.tags.get(_PATIENTS_TAG, _NONE)
        for other in client.search_model_versions(f"name = '{version.name}'")
        if other.version != version.version
        and other.tags.get(_BEFORE_TAG) == champion
        and other.tags.get(_PATIENTS_TAG, _NONE) != _NONE
    ]
    return len(found), found.count(_digest(patients))


def record_decision(
    client: MlflowClient, version: ModelVersion, record: DecisionRecord
) -> ModelVersion:
    """Writes a decision to its version; retries of the step repeat it."""
    name, number = version.name, str(version.version)
    compared = _digest(record.comparison.pairs) if record.comparison else _NONE
    text = f"{record.outcome}: {record.reason}"
    client.update_model_version(name, number, description=text)
    client.set_model_version_tag(name, number, _BEFORE_TAG, record.champion_version or _NONE)
    client.set_model_version_tag(name, number, _PATIENTS_TAG, compared)
    # last, because it marks the version as decided
    client.set_model_version_tag(name, number, DECISION_TAG, record.outcome)
    return client.get_model_version(name, number)


def apply_decision(client: MlflowClient, version: ModelVersion) -> None:
    """Moves the alias `champion` or `challenger` to the version, once.

    A repeated call does nothing: a late retry of an old step must neither take the alias from a
    newer champion nor undo a rollback.
    """
    if _APPLIED_TAG in version.tags:
        return
    name, number = version.name, str(version.version)
    promoted = version.tags[DECISION_TAG] == "promoted"
    if not promoted or _is_next(client, version):
        client.set_registered_model_alias(name, CHAMPION if promoted else CHALLENGER, number)
    client.set_model_version_tag(name, number, _APPLIED_TAG, "true")


def version_before(version: ModelVersion) -> str | None:
    """Returns the number of the champion that a version replaced; `None` if there was none."""
    before = version.tags.get(_BEFORE_TAG, _NONE)
    return None if before == _NONE else before


def folder_digest(folder: Path) -> str:
    """Computes the digest of names and bytes of a model folder's files, 16 hexadecimal digits."""
    hasher = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        # MLflow drops this file into a folder when it loads a registered model from it
        if path.is_file() and path.name != "registered_model_meta":
            digest = file_digest(path)
            hasher.update(f"{path.relative_to(folder).as_posix()}\n{digest}\n".encode())
    return hasher.hexdigest()[:16]


def _digest(volumes: Collection[str]) -> str:
    return short_digest(canonical_json(sorted(volumes)))


def _ensure_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(
            name, description="Brain tumour segmenter: whole volume in, probability out."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _upload(client: MlflowClient, run_id: str, folder: Path, digest: str) -> LoggedModel:
    run = client.get_run(run_id)
    known = client.search_logged_models(
        experiment_ids=[run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'"
    )
    # from an attempt that ended before it created the version
    model = next((one for one in known if one.tags.get(_DIGEST_TAG) == digest), None)
    if model is None:
        model = client.create_logged_model(
            run.info.experiment_id,
            name="segmenter",
            source_run_id=run_id,
            params=run.data.params,
            tags={_DIGEST_TAG: digest},
        )
    client.log_model_artifacts(model.model_id, str(folder))
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return client.finalize_logged_model(model.model_id, "READY")


def _link_metrics(client: MlflowClient, run_id: str, model_id: str, names: Collection[str]) -> None:
    # logs the points again with the model's id, so that the model's page shows them too
    linked = [
        Metric(point.key, point.value, point.timestamp, point.step, model_id=model_id)
        for name in names
        for point in client.get_metric_history(run_id, name)[-1:]
    ]
    client.log_batch(run_id, metrics=linked)


@explaining_files()
def _check_upload(model_id: str, digest: str) -> None:
    with TemporaryDirectory() as folder:
        uri = f"models:/{model_id}"
        found = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        if folder_digest(Path(found)) != digest:
            raise UserError(
                f"MLflow has different bytes for {uri} than were sent; check the server's artifact "
                "storage and run the step again"
            )


def _is_next(client: MlflowClient, version: ModelVersion) -> bool:
    champion = find_champion(client, version.name)
    number = str(champion.version) if champion else _NONE
    if number in (version.tags[_BEFORE_TAG], str(version.version)):
        return True
    logger.warning(
        "version %s is the champion now and keeps the alias, although version %s was to replace "
        "version %s",
        number,
        version.version,
        version.tags[_BEFORE_TAG],
    )
    return False
