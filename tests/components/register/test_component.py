import dataclasses
import json

import pytest
from kfp import dsl

from components.register.component import register
from components.shared.scoring.table import write_patient_scores
from components.shared.storage.outcome import read_outcome
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of


@pytest.fixture
def run(world, tmp_path):
    """Runs the step's body as its process would."""

    def run(candidate, **settings):
        (tmp_path / "manifest").write_bytes(world.manifest.to_json())
        (tmp_path / "split").write_bytes(world.split.to_json())
        (tmp_path / "metrics").write_text(json.dumps(candidate.metrics))
        write_patient_scores({"tumour": candidate.scores}, tmp_path / "per_patient")
        files = {
            name: dsl.Artifact(uri=str(tmp_path / name))
            for name in ("manifest", "split", "per_patient", "metrics", "decision", "report")
        }
        return register.python_func(
            store=world.store.uri,
            dataset_id=world.manifest.dataset_id,
            split_id=world.split.split_id,
            mlflow_run_id=candidate.run_id,
            model=dsl.Model(uri=str(candidate.folder)),
            settings=json.dumps({**world.settings.model_dump(), **settings}),
            **files,
        )

    return run


def test_registers_and_ends_the_run(run, world, tmp_path):
    candidate = world.candidate(150)
    uri, version, promoted, reason = run(candidate)
    assert (uri, version, promoted) == (f"models:/{world.settings.model_name}/1", "1", True)
    assert json.loads((tmp_path / "decision").read_text())["reason"] == reason
    assert "Version 1 is champion." in (tmp_path / "report").read_text()
    client = connect()
    assert client.get_run(candidate.run_id).info.status == "FINISHED"
    above = client.get_run(pipeline_run_of(client, candidate.run_id))
    assert above.info.status == "FINISHED"
    assert above.data.metrics["patient_dice_mean"] == candidate.metrics["patient_dice_mean"]
    assert above.data.tags["decision"] == "promoted"
    assert above.data.tags["model_version"] == f"{world.settings.model_name}/1"
    assert reason in above.data.tags["mlflow.note.content"]


def test_leaves_the_outcome_of_the_pipeline_run(run, world):
    candidate = world.candidate(150)
    _, _, _, reason = run(candidate)
    name = connect().get_run(candidate.run_id).data.tags["kfp_run_id"]
    found = read_outcome(world.store, name)
    assert (found.kind, found.reason, found.model) == (
        "promoted",
        reason,
        f"models:/{world.settings.model_name}/1",
    )
    assert found.mlflow_run_id == pipeline_run_of(connect(), candidate.run_id)
    assert found.headline.startswith("patient Dice 0.")
    assert found.metrics["patient_dice_mean"] == candidate.metrics["patient_dice_mean"]


def test_a_refusal_is_no_failure(run, world):
    run(world.candidate(150))
    candidate = world.candidate(170)
    _, version, promoted, reason = run(candidate)
    assert (version, promoted) == ("2", False)
    assert "may be worse by more than the margin of 0.030" in reason
    assert connect().get_run(candidate.run_id).info.status == "FINISHED"


def test_the_rules_are_settings(run, world):
    run(world.candidate(150))
    _, _, promoted, _ = run(world.candidate(170), margin=1, group_floor=1)
    assert not promoted  # certainly worse
    with pytest.raises(SystemExit):
        run(world.candidate(150), margin=-1)


def test_a_users_mistake_is_one_line_and_marks_the_run(run, world, capfd):
    candidate = world.candidate(150)
    metrics = {key: value for key, value in candidate.metrics.items() if key != "pooled_dice"}
    candidate = dataclasses.replace(candidate, metrics=metrics)
    with pytest.raises(SystemExit):
        run(candidate)
    assert "brainseg error: the metrics lack pooled_dice; pass the file" in capfd.readouterr().err
    assert connect().get_run(candidate.run_id).info.status == "FAILED"
