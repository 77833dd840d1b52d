"""The whole of the register step: version, comparison, decision, alias."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mlflow import MlflowClient
from mlflow.artifacts import load_dict
from mlflow.entities.model_registry import ModelVersion

from components.register import registry
from components.register.decision import (
    Comparison,
    Decision,
    compare,
    decide,
    decide_first,
    too_few,
)
from components.register.held_out import score_champion, unseen
from components.register.settings import RegisterSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.errors import UserError
from components.shared.scoring.scores import PatientScore
from components.shared.scoring.table import read_patient_scores
from components.shared.tracking.champion import find_champion
from components.shared.tracking.runs import log_metrics, log_params, log_tags

logger = logging.getLogger(__name__)

OUTCOME_TAGS = ("decision", "decision_reason", "model_version", "mlflow.note.content")
"""Tags of the training's run that say what became of its model."""

_RECORD = "register/decision.json"


@dataclass(frozen=True)
class Candidate:
    """A trained and evaluated model.

    Attributes:
        run_id: The MLflow run that it comes from.
        folder: Its MLflow model folder.
        dataset_id: What it learned from and was evaluated on.
        split_id: Which part of that.
        scores: Of the test patients.
        metrics: What evaluate measured over them.
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
        scores = read_patient_scores(per_patient)
        return cls(run_id, folder, dataset_id, split_id, scores, json.loads(metrics.read_text()))


@dataclass(frozen=True)
class Registration:
    """A registered version and what was decided about it.

    Attributes:
        model_uri: `models:/name/version`.
        record: All of the decision, for machines.
    """

    model_uri: str
    model_version: str
    promoted: bool
    reason: str
    record: Mapping[str, Any]


def register_model(
    client: MlflowClient, candidate: Candidate, dataset: SplitDataset, settings: RegisterSettings
) -> Registration:
    """Registers a candidate and moves the alias `champion` to it if it is good enough.

    Run again, it registers nothing twice and repeats the decision made before.

    Raises:
        UserError: If the scores are not of the test patients, the champion cannot be loaded
            or changed meanwhile, or the server refuses.
    """
    _check_scores(candidate, dataset)
    log_params(client, candidate.run_id, {"register": settings.model_dump(mode="json")})
    version = registry.add_version(
        *(client, settings.model_name, candidate.run_id, candidate.folder),
        tags=_version_tags(candidate),
        metrics=candidate.metrics,
    )
    if not registry.is_decided(version):
        version = _decide(client, version, candidate, dataset, settings)
    registry.apply_decision(client, version)
    record = load_dict(f"runs:/{candidate.run_id}/{_RECORD}")
    outcome = "promoted" if record["promoted"] else "not promoted"
    logger.info(
        "version %s of %s: %s: %s", version.version, version.name, outcome, record["reason"]
    )
    return Registration(
        model_uri=record["model_uri"],
        model_version=record["model_version"],
        promoted=record["promoted"],
        reason=record["reason"],
        record=record,
    )


def _decide(
    client: MlflowClient,
    version: ModelVersion,
    candidate: Candidate,
    dataset: SplitDataset,
    settings: RegisterSettings,
) -> ModelVersion:
    champion = find_champion(client, settings.model_name)
    comparison = None
    if champion is None:
        decision = decide_first(candidate.metrics)
    else:
        decision, comparison = _against(champion, candidate, dataset, settings)
    number = str(champion.version) if champion else ""
    _require_same(client, settings.model_name, number)
    _log(client, candidate.run_id, _record(version, number, decision, comparison, settings))
    return registry.record_decision(client, version, number, decision.promoted, decision.reason)


def _against(
    champion: ModelVersion, candidate: Candidate, dataset: SplitDataset, settings: RegisterSettings
) -> tuple[Decision, Comparison | None]:
    name = f"version {champion.version}"
    entries = unseen(champion, dataset)
    refusal = too_few(len(entries), name)
    if refusal:
        return refusal, None
    volumes = {entry.volume for entry in entries}
    comparison = compare(
        [score for score in candidate.scores if score.volume in volumes],
        score_champion(champion, entries, dataset, settings),
        settings,
    )
    return decide(candidate.metrics, comparison, name, settings), comparison


def _check_scores(candidate: Candidate, dataset: SplitDataset) -> None:
    scored = {score.volume for score in candidate.scores}
    expected = {entry.volume for entry in dataset.entries("test")}
    if scored != expected:
        raise UserError(
            f"the candidate's scores are of {len(scored)} volumes, {len(scored & expected)} of "
            f"them among the {len(expected)} test volumes of split {candidate.split_id}; give the "
            "scores that evaluate wrote for this split"
        )


def _require_same(client: MlflowClient, name: str, number: str) -> None:
    now = find_champion(client, name)
    if (str(now.version) if now else "") != number:
        raise UserError(
            f"the champion of model {name} changed while the candidate was compared with it; run "
            "the step again"
        )


def _version_tags(candidate: Candidate) -> dict[str, str]:
    shown = ("patient_dice_mean", "pooled_dice")
    return {
        "dataset_id": candidate.dataset_id,
        "split_id": candidate.split_id,
        "test_patients": str(len(candidate.scores)),
        **{name: f"{candidate.metrics[name]:.4f}" for name in shown if name in candidate.metrics},
    }


def _record(
    version: ModelVersion,
    champion: str,
    decision: Decision,
    comparison: Comparison | None,
    settings: RegisterSettings,
) -> dict[str, Any]:
    return {
        "promoted": decision.promoted,
        "reason": decision.reason,
        "model_name": version.name,
        "model_version": str(version.version),
        "model_uri": f"models:/{version.name}/{version.version}",
        "champion_version": champion or None,
        "comparison": _comparison_record(comparison) if comparison else None,
        "settings": settings.model_dump(mode="json"),
    }


def _comparison_record(comparison: Comparison) -> dict[str, Any]:
    return {
        **dataclasses.asdict(comparison),
        "difference": comparison.difference,
        "groups": [
            {**dataclasses.asdict(one), "difference": one.difference} for one in comparison.groups
        ],
    }


def _log(client: MlflowClient, run_id: str, record: Mapping[str, Any]) -> None:
    client.log_dict(run_id, dict(record), _RECORD)
    tags = {
        "decision": "promoted" if record["promoted"] else "rejected",
        "decision_reason": record["reason"],
        "model_version": f"{record['model_name']}/{record['model_version']}",
    }
    tags["mlflow.note.content"] = _note(record)  # the run's description
    log_tags(client, run_id, tags)
    metrics = {"register/promoted": float(record["promoted"])}
    if record["comparison"]:
        comparison = record["comparison"]
        metrics |= {
            "register/patients": float(len(comparison["pairs"])),
            "register/champion_patient_dice_mean": comparison["champion"],
            "register/difference": comparison["difference"],
            "register/difference_low": comparison["low"],
            "register/difference_high": comparison["high"],
        }
    log_metrics(client, run_id, metrics)


def _note(record: Mapping[str, Any]) -> str:
    outcome = "Promoted to champion" if record["promoted"] else "Not promoted"
    name = f"version {record['model_version']} of {record['model_name']}"
    return f"{outcome}, {name}: {record['reason']}"
