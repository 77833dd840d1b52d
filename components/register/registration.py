"""Register step: version, comparison, decision, alias."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.register import registry
from components.register.decision import (
    HEADLINES,
    Decision,
    decide,
    decide_first,
    not_comparable,
    require_metrics,
    too_few,
)
from components.register.held_out import NotComparableError, score_model, unseen
from components.register.page import render_decision
from components.register.record import (
    DecisionRecord,
    leave_decision,
    log_record,
    outcome_tags,
    read_record,
)
from components.register.settings import RegisterSettings
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.parts import SplitDataset
from components.shared.errors import OutageError, UserError
from components.shared.scoring.comparison import Comparison, compare
from components.shared.scoring.metrics import HEADLINE, THRESHOLD
from components.shared.scoring.scores import PatientScore
from components.shared.scoring.table import read_target_scores
from components.shared.tracking.champion import (
    DECISION_TAG,
    STORE_TAG,
    THRESHOLD_TAG,
    find_champion,
    is_origin_known,
    version_threshold,
)
from components.shared.tracking.runs import log_outcome, log_params, recording
from components.shared.tracking.tree import end_pipeline_run

logger = logging.getLogger(__name__)

_PAGE = "register/decision.html"
_START = "train.network.initial_weights_source"  # parameter of a run that started warm


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model.

    Attributes:
        run_id: MLflow run that trained the model.
        folder: MLflow model folder.
        targets: Scores of the test patients by target, the first target first; a single target may
            have any name.
        metrics: Metrics of evaluate over the test patients, and `threshold`.
    """

    run_id: str
    folder: Path
    targets: Mapping[str, Sequence[PatientScore]]
    metrics: Mapping[str, float]

    @classmethod
    def read(cls, *, run_id: str, folder: Path, per_patient: Path, metrics: Path) -> Self:
        """Reads the artifacts of evaluate.

        Raises:
            UserError: If the table of patients was not written by evaluate.
        """
        return cls(
            run_id=run_id,
            folder=folder,
            targets=read_target_scores(per_patient),
            metrics=json.loads(metrics.read_text()),
        )

    @property
    def scores(self) -> Sequence[PatientScore]:
        """Scores of the first target."""
        return next(iter(self.targets.values()), [])

    @property
    def threshold(self) -> float:
        """Threshold of the scores."""
        return self.metrics[THRESHOLD]


def register_model(
    candidate: Candidate,
    dataset: SplitDataset,
    settings: RegisterSettings,
    *,
    decision: Path,
    report: Path,
) -> DecisionRecord:
    """Registers a candidate and moves the alias `champion` to it unless it is inferior.

    This ends the pipeline run, and stores its outcome. A repeated call registers nothing twice,
    and repeats the earlier decision. The component describes the files, which are written.

    Raises:
        UserError: If the scores are not of the test patients, the champion cannot be loaded or
            changes during the comparison, or the server refuses.
    """
    with recording(candidate.run_id) as client:
        record = _register(client, candidate, dataset, settings)
        log_outcome(client, candidate.run_id, HEADLINE, outcome_tags(record))
        end_pipeline_run(client, candidate.run_id, dataset.store)
        leave_decision(client, candidate.run_id, record, dataset.store)
    decision.write_text(record.model_dump_json(indent=2))
    report.write_text(render_decision(record), encoding="utf-8")
    return record


@dataclass(frozen=True)
class _Case:
    """A version to decide about, with its data and rules."""

    client: MlflowClient
    version: ModelVersion
    candidate: Candidate
    dataset: SplitDataset
    settings: RegisterSettings


def _register(
    client: MlflowClient, candidate: Candidate, dataset: SplitDataset, settings: RegisterSettings
) -> DecisionRecord:
    require_metrics(candidate.metrics)
    _check_scores(candidate, dataset)
    log_params(client, candidate.run_id, {"register": settings.model_dump(mode="json")})
    version = registry.add_version(
        client,
        name=settings.model_name,
        run_id=candidate.run_id,
        folder=candidate.folder,
        tags=_version_tags(candidate, dataset),
        metrics=candidate.metrics,
    )
    if DECISION_TAG not in version.tags:
        version = _decide(_Case(client, version, candidate, dataset, settings))
    registry.apply_decision(client, version)
    record = read_record(candidate.run_id)
    logger.info(
        "version %s of %s: %s: %s", version.version, version.name, record.outcome, record.reason
    )
    return record


def _decide(case: _Case) -> ModelVersion:
    client, candidate, settings = case.client, case.candidate, case.settings
    champion = find_champion(client, settings.model_name)
    if champion is None:
        record = _record(case, decide_first(candidate.metrics, settings))
    else:
        record = _against(case, champion)
    _require_same(client, settings.model_name, record.champion_version)
    log_record(client, candidate.run_id, record)
    client.log_text(candidate.run_id, render_decision(record), _PAGE)
    return registry.record_decision(client, case.version, record)


def _against(case: _Case, champion: ModelVersion) -> DecisionRecord:
    name = f"version {champion.version}"
    try:
        entries = unseen(champion, case.dataset, case.settings.compare_on)
        refusal = too_few(len({entry.patient for entry in entries}), name)
        if refusal:
            return _record(case, refusal, champion)
        comparisons = _compare(case, champion, entries)
    except NotComparableError as error:
        return _record(case, not_comparable(name, str(error)), champion)
    first, *_ = comparisons.values()
    decision = decide(case.candidate.metrics, first, name, case.settings)
    return _record(case, decision, champion, comparisons)


def _compare(
    case: _Case, champion: ModelVersion, entries: Sequence[VolumeEntry]
) -> dict[str, Comparison]:
    candidate, dataset, device = case.candidate, case.dataset, case.settings.device
    asked, known = {entry.volume for entry in entries}, {one.volume for one in candidate.scores}
    scores: list[list[PatientScore]] = [
        [score for score in some if score.volume in asked] for some in candidate.targets.values()
    ]
    others = [entry for entry in entries if entry.volume not in known]
    if others:
        what, threshold = "candidate's volumes", candidate.threshold
        added = score_model(candidate.folder, others, dataset, threshold, device, what)
        scores = [[*some, *more] for some, more in zip(scores, added.values(), strict=True)]
    what, threshold = "champion's volumes", version_threshold(champion)
    uri = f"models:/{champion.name}/{champion.version}"
    try:
        reference = score_model(uri, entries, dataset, threshold, device, what)
    except (OutageError, NotComparableError):
        raise
    except UserError as error:
        raise UserError(
            f"the champion cannot be compared: {error}; to register without it, remove the alias "
            "champion in MLflow: the next accepted model becomes champion as a first one does"
        ) from error
    return {
        target: compare(some, theirs, case.settings.bound_confidence)
        for some, (target, theirs) in zip(scores, reference.items(), strict=True)
    }


def _check_scores(candidate: Candidate, dataset: SplitDataset) -> None:
    found, wanted = len(candidate.targets), len(dataset.manifest.targets)
    if found != wanted:
        raise UserError(
            f"the candidate has scores of {found} targets, and the data set has {wanted}; pass the "
            "scores that evaluate wrote for this data set"
        )
    scored = {score.volume for score in candidate.scores}
    expected = {entry.volume for entry in dataset.entries("test")}
    if scored != expected:
        raise UserError(
            f"the candidate has scores of {len(scored)} volumes, {len(scored & expected)} of them "
            f"among the {len(expected)} test volumes of split {dataset.split.split_id}; pass the "
            "scores that evaluate wrote for this split"
        )


def _require_same(client: MlflowClient, name: str, number: str | None) -> None:
    now = find_champion(client, name)
    if (str(now.version) if now else None) != number:
        raise UserError(
            f"the champion of model {name} changed during the comparison; run the step again"
        )


def _version_tags(candidate: Candidate, dataset: SplitDataset) -> dict[str, str]:
    return {
        "dataset_id": dataset.manifest.dataset_id,
        "split_id": dataset.split.split_id,
        STORE_TAG: dataset.store.uri,
        "test_patients": str(len({score.patient for score in candidate.scores})),
        THRESHOLD_TAG: str(candidate.threshold),
        **{name: f"{candidate.metrics[name]:.4f}" for name in HEADLINES},
    }


def _started_from(case: _Case) -> str:
    params = case.client.get_run(case.candidate.run_id).data.params
    return str(params.get(_START, ""))


def _record(
    case: _Case,
    decision: Decision,
    champion: ModelVersion | None = None,
    comparisons: Mapping[str, Comparison] = {},
) -> DecisionRecord:
    comparison = next(iter(comparisons.values()), None)
    earlier, on_same = (0, 0)
    if champion:
        volumes, number = comparison.pairs if comparison else (), str(champion.version)
        earlier, on_same = registry.count_decisions(case.client, case.version, number, volumes)
    return DecisionRecord(
        promoted=decision.promoted,
        reason=decision.reason,
        model_name=case.version.name,
        model_version=str(case.version.version),
        champion_version=str(champion.version) if champion else None,
        dataset_id=case.dataset.manifest.dataset_id,
        split_id=case.dataset.split.split_id,
        threshold=case.candidate.threshold,
        champion_threshold=version_threshold(champion) if champion else None,
        champion_origin_known=bool(champion and is_origin_known(champion, case.dataset.store)),
        metrics=case.candidate.metrics,
        comparison=comparison,
        targets=tuple(target.name for target in case.dataset.manifest.targets),
        further=dict(list(comparisons.items())[1:]),
        earlier_decisions=earlier,
        earlier_on_same_patients=on_same,
        started_from=_started_from(case),
        settings=case.settings,
    )
