"""Ensemble step: the average of trained models as one exported segmenter."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from components.shared.errors import UserError
from components.shared.model.model_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AnySegmenter,
    BadModelError,
    read_segmenter,
)
from components.shared.model.network import EnsembleSegmenter, PairedSegmenter, VolumeSegmenter
from components.shared.report.training_history import TrainingHistory
from components.shared.tracking.identity import Training
from components.shared.tracking.refusals import explaining
from components.shared.tracking.runs import log_params, recording
from components.shared.tracking.server import connect
from components.shared.tracking.tree import open_run
from components.train.ensemble_settings import EnsembleSettings
from components.train.export import export_segmenter

logger = logging.getLogger(__name__)

_LABEL = "ensemble"


@dataclass(frozen=True)
class Member:
    """Artifacts of a training run.

    Attributes:
        run_id: Id of the MLflow run.
        folder: MLflow model folder.
        history: JSON of the `TrainingHistory`.
    """

    run_id: str
    folder: Path
    history: Path


def average_models(
    members: Sequence[Member],
    settings: EnsembleSettings,
    *,
    pipeline_run: str,
    dataset_id: str,
    split_id: str,
    model: Path,
    history: Path,
) -> str:
    """Exports the average of trained models, and opens an MLflow run for it.

    A repeated call writes the same model under the same run. The arguments are those of
    `components.train.component.ensemble`. The folder `model` must not exist.

    Returns:
        Id of the MLflow run.

    Raises:
        UserError: If the models differ in more than their weights, are larger than the limit, or
            cannot be loaded, or if the MLflow server cannot be used.
    """
    labels = _labels(members)
    # fold-10 after fold-9
    members = sorted(members, key=lambda one: (len(labels[one.run_id]), labels[one.run_id]))
    _require_size(members, settings)
    training = Training(
        pipeline_run=pipeline_run,
        label=_LABEL,
        dataset_id=dataset_id,
        split_id=split_id,
        recipe={"members": [member.run_id for member in members]},
    )
    run_id = open_run(training, name=f"of {len(members)}")
    with recording(run_id) as client:
        log_params(client, run_id, _params(client, members, settings))
        difference = export_segmenter(_average(members), model)
        logger.info(
            "exported the average of %d models; its stored forms differ from it by at most %.1g",
            len(members),
            difference,
        )
        histories = {
            labels[member.run_id]: TrainingHistory.model_validate_json(member.history.read_bytes())
            for member in members
        }
        history.write_text(TrainingHistory(members=histories).model_dump_json())
    return run_id


@explaining()
def _labels(members: Iterable[Member]) -> dict[str, str]:
    """Labels of the members by the ids of their runs."""
    client, runs = connect(), [member.run_id for member in members]
    return {run_id: client.get_run(run_id).data.tags.get("label", run_id) for run_id in runs}


def _require_size(members: Iterable[Member], settings: EnsembleSettings) -> None:
    sizes = [(member.folder / WEIGHTS_FILE).stat().st_size / 2**20 for member in members]
    if sum(sizes) > settings.max_size_mib:
        raise UserError(
            f"the {len(sizes)} members have {sum(sizes):.0f} MiB of weights, more than "
            f"ensemble.max_size_mib={settings.max_size_mib:g}; raise the limit, lower fold.folds "
            "or use a smaller encoder"
        )


def _average(members: Sequence[Member]) -> EnsembleSegmenter:
    segmenters = [_read(member) for member in members]
    first = _form(segmenters[0])
    for member, segmenter in zip(members, segmenters, strict=True):
        if _form(segmenter) != first:
            raise UserError(
                f"MLflow run {member.run_id} has another network than run {members[0].run_id}; an "
                "ensemble averages models of one recipe"
            )
    return EnsembleSegmenter(segmenters)


def _read(member: Member) -> VolumeSegmenter | PairedSegmenter:
    try:
        found, _ = read_segmenter(member.folder / CONFIG_FILE, member.folder / WEIGHTS_FILE)
    except BadModelError as error:
        raise UserError(f"the model of MLflow run {member.run_id}: {error}") from error
    if isinstance(found, EnsembleSegmenter):
        raise UserError(f"MLflow run {member.run_id} has an ensemble, which cannot be a member")
    return found


def _form(segmenter: AnySegmenter) -> object:
    settings = [each.settings for each in segmenter.modules() if isinstance(each, VolumeSegmenter)]
    return settings, segmenter.channels, segmenter.targets


def _params(
    client: MlflowClient, members: Sequence[Member], settings: EnsembleSettings
) -> dict[str, object]:
    trained = client.get_run(members[0].run_id).data.params
    recipe = {name: value for name, value in trained.items() if name.startswith("train.")}
    own = {"ensemble.members": len(members), "ensemble.max_size_mib": settings.max_size_mib}
    return {**recipe, **own}
