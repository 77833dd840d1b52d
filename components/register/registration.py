"""The whole of the register step: version, comparison, decision, alias."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.register import registry
from components.register.decision import Decision, decide, decide_first, too_few
from components.register.held_out import score_model, unseen
from components.register.page import render_decision
from components.register.record import DecisionRecord, log_record, read_record
from components.register.settings import RegisterSettings
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.parts import SplitDataset
from components.shared.errors import UserError
from components.shared.scoring.comparison import Comparison, compare
from components.shared.scoring.metrics import THRESHOLD
from components.shared.scoring.scores import PatientScore
from components.shared.scoring.table import read_patient_scores
from components.shared.tracking.champion import (
    DEFAULT_THRESHOLD,
    STORE_TAG,
    THRESHOLD_TAG,
    find_champion,
    is_origin_known,
    version_threshold,
)
from components.shared.tracking.runs import log_params

logger = logging.getLogger(__name__)

_PAGE = "register/decision.html"


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model.

    Attributes:
        run_id: The MLflow run that it comes from.
        folder: Its MLflow model folder.
        dataset_id: What it learned from and was evaluated on.
        split_id: Which part of that.
        scores: Of the test patients.
        metrics: What evaluate measured over them, and `threshold`.
    """

    run_id: str
    folder: Path
    dataset_id: str
    split_id: str
    scores: Sequence[PatientScore]
    metrics: Mapping[str, float]

    @classmethod
    def read(
        cls,
        *,
        run_id: str,
        folder: Path,
        dataset_id: str,
        split_id: str,
        per_patient: Path,
        metrics: Path,
    ) -> Self:
        """Reads the artifacts of evaluate.

        Raises:
            UserError: If the table of patients is not of evaluate's form.
        """
        return cls(
            run_id=run_id,
            folder=folder,
            dataset_id=dataset_id,
            split_id=split_id,
            scores=read_patient_scores(per_patient),
            metrics=json.loads(metrics.read_text()),
        )

    @property
    def threshold(self) -> float:
        """What the scores were made with."""
        return self.metrics.get(THRESHOLD, DEFAULT_THRESHOLD)


def register_model(
    client: MlflowClient, candidate: Candidate, dataset: SplitDataset, settings: RegisterSettings
) -> DecisionRecord:
    """Registers a candidate and moves the alias `champion` to it unless it is inferior.

    Run again, it registers nothing twice and repeats the decision made before.

    Raises:
        UserError: If the scores are not of the test patients, the champion cannot be loaded
            or changed meanwhile, or the server refuses.
    """
    _check_scores(candidate, dataset)
    log_params(client, candidate.run_id, {"register": settings.model_dump(mode="json")})
    version = registry.add_version(
        client,
        name=settings.model_name,
        run_id=candidate.run_id,
        folder=candidate.folder,
        tags=_version_tags(candidate, dataset.store.uri),
        metrics=candidate.metrics,
    )
    if not registry.is_decided(version):
        version = _decide(client, version, candidate, dataset, settings)
    registry.apply_decision(client, version)
    record = read_record(candidate.run_id)
    logger.info(
        "version %s of %s: %s: %s", version.version, version.name, record.outcome, record.reason
    )
    return record


def _decide(
    client: MlflowClient,
    version: ModelVersion,
    candidate: Candidate,
    dataset: SplitDataset,
    settings: RegisterSettings,
) -> ModelVersion:
    champion = find_champion(client, settings.model_name)
    if champion is None:
        record = _record(version, candidate, decide_first(candidate.metrics, settings), settings)
    else:
        record = _against(client, version, champion, candidate, dataset, settings)
    _require_same(client, settings.model_name, record.champion_version)
    log_record(client, candidate.run_id, record)
    client.log_text(candidate.run_id, render_decision(record), _PAGE)
    return registry.record_decision(client, version, record)


def _against(
    client: MlflowClient,
    version: ModelVersion,
    champion: ModelVersion,
    candidate: Candidate,
    dataset: SplitDataset,
    settings: RegisterSettings,
) -> DecisionRecord:
    name = f"version {champion.version}"
    entries = unseen(champion, dataset, settings.compare_on)
    is_known = is_origin_known(champion, dataset.store)
    refusal = too_few(len(entries), name)
    if refusal:
        return _record(version, candidate, refusal, settings, champion, is_known=is_known)
    comparison = compare(
        _candidate_scores(candidate, entries, dataset, settings),
        score_model(
            f"models:/{champion.name}/{champion.version}",
            entries,
            dataset,
            threshold=version_threshold(champion),
            device=settings.device,
            what="champion's volumes",
        ),
        settings.bound_confidence,
    )
    return _record(
        version,
        candidate,
        decide(candidate.metrics, comparison, name, settings),
        settings,
        champion,
        comparison,
        registry.count_decisions(client, version, str(champion.version), comparison.pairs),
        is_known=is_known,
    )


def _candidate_scores(
    candidate: Candidate,
    entries: Sequence[VolumeEntry],
    dataset: SplitDataset,
    settings: RegisterSettings,
) -> list[PatientScore]:
    by_volume = {score.volume: score for score in candidate.scores}
    known = [by_volume[entry.volume] for entry in entries if entry.volume in by_volume]
    others = [entry for entry in entries if entry.volume not in by_volume]
    if not others:
        return known
    predicted = score_model(
        candidate.folder,
        others,
        dataset,
        threshold=candidate.threshold,
        device=settings.device,
        what="candidate's volumes",
    )
    return [*known, *predicted]


def _check_scores(candidate: Candidate, dataset: SplitDataset) -> None:
    scored = {score.volume for score in candidate.scores}
    expected = {entry.volume for entry in dataset.entries("test")}
    if scored != expected:
        raise UserError(
            f"the candidate's scores are of {len(scored)} volumes, {len(scored & expected)} of "
            f"them among the {len(expected)} test volumes of split {candidate.split_id}; give the "
            "scores that evaluate wrote for this split"
        )


def _require_same(client: MlflowClient, name: str, number: str | None) -> None:
    now = find_champion(client, name)
    if (str(now.version) if now else None) != number:
        raise UserError(
            f"the champion of model {name} changed while the candidate was compared with it; run "
            "the step again"
        )


def _version_tags(candidate: Candidate, store: str) -> dict[str, str]:
    shown = ("patient_dice_mean", "pooled_dice")
    return {
        "dataset_id": candidate.dataset_id,
        "split_id": candidate.split_id,
        STORE_TAG: store,
        "test_patients": str(len(candidate.scores)),
        THRESHOLD_TAG: str(candidate.threshold),
        **{name: f"{candidate.metrics[name]:.4f}" for name in shown if name in candidate.metrics},
    }


def _record(
    version: ModelVersion,
    candidate: Candidate,
    decision: Decision,
    settings: RegisterSettings,
    champion: ModelVersion | None = None,
    comparison: Comparison | None = None,
    earlier: tuple[int, int] = (0, 0),
    *,
    is_known: bool = False,
) -> DecisionRecord:
    return DecisionRecord(
        promoted=decision.promoted,
        reason=decision.reason,
        model_name=version.name,
        model_version=str(version.version),
        champion_version=str(champion.version) if champion else None,
        dataset_id=candidate.dataset_id,
        split_id=candidate.split_id,
        threshold=candidate.threshold,
        champion_threshold=version_threshold(champion) if champion else None,
        champion_origin_known=is_known,
        metrics=candidate.metrics,
        comparison=comparison,
        earlier_decisions=earlier[0],
        earlier_on_same_patients=earlier[1],
        settings=settings,
    )
