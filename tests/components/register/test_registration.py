import dataclasses
import json
import subprocess
import sys

import mlflow
import numpy as np
import pytest

from components.register import page
from components.register.page import render_decision
from components.register.record import DecisionRecord, read_record
from components.register.registration import Candidate
from components.register.rollback import rollback
from components.shared.dataset.channels import Channels, Target
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.split import make_split
from components.shared.errors import UserError
from components.shared.model.segmenter import load_segmenter
from components.shared.scoring.table import read_target_scores, write_patient_scores
from components.shared.tracking.runs import log_params
from components.shared.tracking.server import connect
from tests.components.conftest import BOTH_MLFLOWS, REGION_FORM

GOOD, BETTER, WORSE, POOR, USELESS = 155, 150, 170, 180, 250


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch):
    # they take as long as the rest of a registration; test_page and test_component draw them
    monkeypatch.setattr(page, "draw", lambda figure: "data:image/svg+xml,")


def test_a_first_model_is_registered_without_torch():
    """It takes seconds to import, and there is nothing to predict."""
    script = "import sys, components.register.registration; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def versions(world):
    return connect().search_model_versions(f"name = '{world.settings.model_name}'")


def test_the_first_good_model_is_champion_bit_for_bit(any_world, make_blob):
    found = any_world.register(any_world.candidate(GOOD))
    assert found.promoted
    assert found.reason.startswith("there was no champion; patient_dice_mean 0.")
    assert found.model_uri == f"models:/{any_world.settings.model_name}/1"
    assert any_world.alias() == found.model_version == "1"
    image = make_blob(77).image
    registered = load_segmenter(f"models:/{any_world.settings.model_name}@champion")
    np.testing.assert_array_equal(
        registered(image), load_segmenter(any_world.model_folder(GOOD))(image)
    )


def test_a_version_shows_where_it_comes_from(world):
    candidate = world.candidate(GOOD)
    start = {"train.network.initial_weights_source": "models:/earlier/3"}
    log_params(connect(), candidate.run_id, start)
    found = world.register(candidate)
    assert found.started_from == "models:/earlier/3"
    (version,) = versions(world)
    assert version.run_id == candidate.run_id
    assert version.tags["dataset_id"] == world.manifest.dataset_id
    assert version.tags["split_id"] == world.split.split_id
    assert version.tags["test_patients"] == "8"
    assert float(version.tags["patient_dice_mean"]) == pytest.approx(
        candidate.metrics["patient_dice_mean"], abs=1e-4
    )
    assert version.tags["decision"] == "promoted"
    assert version.description.startswith("promoted: there was no champion")


def test_the_model_has_signature_example_parameters_and_metrics(any_world):
    from mlflow.models import get_model_info

    candidate = any_world.candidate(GOOD)
    found = any_world.register(candidate)
    info = get_model_info(found.model_uri)
    assert info.signature.inputs.inputs[0].shape == (-1, -1, -1, 3)
    assert info.saved_input_example_info["artifact_path"] == "input_example.json"
    output = connect().get_run(candidate.run_id).outputs.model_outputs[0]
    model = connect().get_logged_model(output.model_id)
    assert model.params["register.margin"] == "0.03"
    link = [{"name": any_world.settings.model_name, "version": 1}]
    assert json.loads(model.tags["mlflow.modelVersions"]) == link
    metrics = {metric.key: metric.value for metric in model.metrics}
    assert metrics["pooled_dice"] == candidate.metrics["pooled_dice"]


def test_the_run_reports_the_decision(world):
    candidate = world.candidate(GOOD)
    world.register(candidate)
    second = world.candidate(BETTER)
    found = world.register(second)
    run = connect().get_run(second.run_id).data
    assert run.tags["decision"] == "promoted"
    assert run.tags["decision_reason"] == found.reason
    assert run.tags["mlflow.note.content"].startswith("Promoted to champion, version 2 of ")
    assert run.tags["model_version"] == f"{world.settings.model_name}/2"
    assert run.metrics["register/promoted"] == 1
    assert run.metrics["register/patients"] == 8
    difference = second.metrics["patient_dice_mean"] - candidate.metrics["patient_dice_mean"]
    assert run.metrics["register/difference"] == pytest.approx(difference)
    assert DecisionRecord.model_validate_json(found.model_dump_json()) == found
    assert read_record(second.run_id) == found
    assert found.champion_version == "1"
    logged = mlflow.artifacts.load_text(f"runs:/{second.run_id}/register/decision.html")
    assert logged == render_decision(found)


def test_a_model_that_finds_nothing_is_never_champion(world):
    found = world.register(world.candidate(USELESS))
    assert not found.promoted
    assert "patient_dice_mean 0.000 is not better than the 0.000" in found.reason
    assert world.alias() is None
    assert world.alias("challenger") == "1"


def test_a_first_model_must_reach_the_floor(world):
    poor = world.candidate(POOR)
    assert poor.metrics["patient_dice_mean"] > poor.metrics["patient_dice_mean_empty_baseline"]
    found = world.register(poor)
    assert not found.promoted
    assert "is below the 0.500 that any champion must reach" in found.reason
    assert world.alias() is None
    assert world.register(world.candidate(POOR), min_patient_dice=0.3).promoted


def test_each_model_is_scored_with_its_own_threshold(world):
    first = world.candidate(GOOD, threshold=0.3)
    world.register(first)
    second = world.candidate(BETTER)
    found = world.register(second)
    assert found.comparison.reference == pytest.approx(first.metrics["patient_dice_mean"])
    assert found.comparison.candidate == pytest.approx(second.metrics["patient_dice_mean"])
    assert (found.threshold, found.champion_threshold) == (0.5, 0.3)
    newest, oldest = versions(world)
    assert (newest.tags["threshold"], oldest.tags["threshold"]) == ("0.5", "0.3")


def test_a_decision_reports_how_often_its_patients_were_used(world):
    world.champion(BETTER)
    used = []
    for level in (WORSE, USELESS, WORSE):
        found = world.register(world.candidate(level))
        used.append((found.earlier_decisions, found.earlier_on_same_patients))
    assert used == [(0, 0), (1, 1), (2, 2)]
    entries = world.manifest.volumes
    parts = {"train": entries[:4], "validation": entries[4:5], "test": entries[5:]}
    world.publish(make_split(parts))
    found = world.register(world.candidate(WORSE))
    assert (found.earlier_decisions, found.earlier_on_same_patients) == (3, 0)
    better = world.candidate(BETTER - 1)
    assert world.register(better).champion_version == "1"


@BOTH_MLFLOWS
def test_a_better_model_is_promoted_and_can_be_rolled_back(any_world):
    any_world.register(any_world.candidate(GOOD))
    found = any_world.register(any_world.candidate(BETTER))
    assert found.promoted
    assert "of version 1 on the same 8 patients" in found.reason
    assert any_world.alias() == "2"
    back = rollback(any_world.settings.model_name)
    assert (back.from_version, back.to_version) == ("2", "1")
    assert any_world.alias() == "1"


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
def test_a_planted_worse_model_is_never_promoted(make_world, local_mlflow, seed):
    world = make_world(seed)
    world.champion(GOOD)
    for level in (158, WORSE, USELESS):
        found = world.register(world.candidate(level))
        assert not found.promoted, found.reason
    assert world.alias() == "1"
    assert world.alias("challenger") == "4"


def test_the_same_model_again_keeps_the_champion(world):
    world.champion(GOOD)
    found = world.register(world.candidate(GOOD))
    assert not found.promoted
    assert "same scores on every patient as version 1" in found.reason
    assert world.alias() == "1"


def test_a_retry_changes_nothing(any_world):
    any_world.register(any_world.candidate(GOOD))
    candidate = any_world.candidate(BETTER)
    first = any_world.register(candidate)
    run = connect().get_run(candidate.run_id)
    version = versions(any_world)[0].last_updated_timestamp
    assert any_world.register(candidate) == first
    assert len(versions(any_world)) == 2
    assert versions(any_world)[0].last_updated_timestamp == version
    again = connect().get_run(candidate.run_id)
    assert again.info.status == "FINISHED"
    assert again.data.to_dictionary() == run.data.to_dictionary()
    assert again.outputs.to_dictionary() == run.outputs.to_dictionary()


def test_a_retry_after_a_newer_champion_does_not_take_the_alias_back(world):
    old = world.candidate(WORSE)
    first = world.register(old)
    world.register(world.candidate(GOOD))
    assert world.register(old) == first
    assert world.alias() == "2"


def test_a_retry_after_a_rollback_does_not_undo_it(world):
    world.champion(WORSE)
    newer = world.candidate(GOOD)
    world.register(newer)
    rollback(world.settings.model_name)
    world.register(newer)
    assert world.alias() == "1"


def stop(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "last_call",
    [
        "log_model_artifacts",
        "finalize_logged_model",
        "create_model_version",
        "log_dict",
        "update_model_version",
        "set_registered_model_alias",
    ],
)
def test_a_step_stopped_anywhere_is_completed_by_its_retry(world, monkeypatch, last_call):
    world.champion(WORSE)
    candidate = world.candidate(GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(f"components.shared.tracking.server.Client.{last_call}", stop)
        with pytest.raises(KeyboardInterrupt):
            world.register(candidate)
    assert world.alias() == "1"
    assert world.register(candidate).promoted
    assert world.alias() == "2"
    assert len(versions(world)) == 2
    assert len(connect().get_run(candidate.run_id).outputs.model_outputs) == 1


def test_a_stopped_step_does_not_replace_a_champion_it_was_not_compared_with(world, monkeypatch):
    world.champion(WORSE)
    slow = world.candidate(GOOD)
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.set_registered_model_alias", stop)
        with pytest.raises(KeyboardInterrupt):
            world.register(slow)
    world.register(world.candidate(BETTER))
    assert world.alias() == "3"
    world.register(slow)
    assert world.alias() == "3"


def test_a_champion_that_changes_meanwhile_stops_the_step(world, monkeypatch):
    world.champion(WORSE)
    world.register(world.candidate(USELESS))
    name = world.settings.model_name

    def score_and_meddle(*arguments, **options):
        connect().set_registered_model_alias(name, "champion", "2")
        return score_model(*arguments, **options)

    from components.register import registration

    score_model = registration.score_model
    monkeypatch.setattr(registration, "score_model", score_and_meddle)
    with pytest.raises(UserError, match="changed during the comparison"):
        world.register(world.candidate(GOOD))
    assert world.alias() == "2"


def test_only_patients_that_the_champion_has_not_seen_are_compared(world):
    world.champion(GOOD)
    entries = world.manifest.volumes
    parts = {"train": entries[8:], "validation": entries[7:8], "test": entries[:7]}
    world.publish(make_split(parts))
    found = world.register(world.candidate(BETTER))
    # patients 0 to 3 were in training and validation of the champion
    assert sorted(found.comparison.pairs) == [entry.volume for entry in entries[4:7]]
    assert "on the same 3 patients" in found.reason


def test_all_unseen_adds_the_champions_own_test_patients(world, publish, make_blob):
    world.champion(GOOD)
    old = {entry.volume for entry in world.dataset.entries("test")}
    volumes = [make_blob(500 + number) for number in range(6)]
    manifest = publish(world.store, volumes, sites=("HT",))
    entries = manifest.volumes
    parts = {"train": entries[:1], "validation": entries[1:2], "test": entries[2:]}
    new = {entry.volume for entry in entries[2:]}
    world.publish(make_split(parts), manifest)
    found = world.register(world.candidate(WORSE))
    assert set(found.comparison.pairs) == new
    found = world.register(world.candidate(BETTER), compare_on="all_unseen")
    assert found.promoted
    assert set(found.comparison.pairs) == new | old
    assert "register.compare_on=all_unseen" in render_decision(found)


def test_a_champion_that_has_seen_every_patient_stays(world):
    world.champion(WORSE)
    entries = world.manifest.volumes
    assert world.register(world.candidate(USELESS)).comparison
    parts = {"train": entries[4:], "validation": entries[3:4], "test": entries[:3]}
    world.publish(make_split(parts))
    found = world.register(world.candidate(GOOD))
    assert not found.promoted
    assert (found.earlier_decisions, found.earlier_on_same_patients) == (1, 0)
    assert "0 of the test patients are new to version 1" in found.reason
    assert found.comparison is None
    assert world.alias() == "1"


def test_a_champion_from_elsewhere_is_compared_on_all_patients(world, caplog):
    world.champion(WORSE)
    connect().set_model_version_tag(world.settings.model_name, "1", "split_id", "0123")
    found = world.register(world.candidate(GOOD))
    assert len(found.comparison.pairs) == 8
    assert not found.champion_origin_known
    assert "they may include test patients" in caplog.text


T1 = Channels(names=("T1", "T2", "T1c"), reference="T2")


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (
            {"channels": T1},
            "it takes the channels pre-contrast, FLAIR, post-contrast, and the volumes have T1, "
            "T2, T1c; register models of such data under a name of their own",
        ),
        (
            {"targets": (Target(name="core", labels=(1,)),), "labels": {"core": 1}},
            "it finds tumour, and the candidate core; register models",
        ),
    ],
)
def test_a_champion_of_other_data_is_not_comparable(world, caplog, form, reason):
    world.champion(150)
    world.publish(world.split, make_manifest(world.manifest.volumes, **form))

    with caplog.at_level("INFO"):
        found = world.register(world.candidate(150), compare_on="all_unseen")

    expected = f"version 1 is not comparable: {reason}"
    assert not found.promoted
    assert found.reason.startswith(expected)
    assert expected in caplog.text
    assert expected in (world.cache.parent / "report").read_text()
    assert world.alias() == "1"


def test_a_champion_that_cannot_be_loaded_stops_the_step(world, tmp_path):
    world.champion(GOOD)
    client, name = connect(), world.settings.model_name
    client.create_model_version(name, source=str(tmp_path / "gone"))
    client.set_registered_model_alias(name, "champion", "2")
    with pytest.raises(UserError, match=f"model models:/{name}/2 cannot be loaded"):
        world.register(world.candidate(BETTER))


def test_a_champion_that_answers_nan_stops_the_step(world):
    good = world.candidate(GOOD)
    world.register(dataclasses.replace(good, folder=world.model_folder(float("nan"))))
    with pytest.raises(UserError, match=r"TCGA_\w+: the model returned values from nan to nan"):
        world.register(world.candidate(BETTER))
    assert world.alias() == "1"


def test_scores_of_other_patients_are_refused(world):
    candidate = world.candidate(GOOD)
    short = dataclasses.replace(candidate, targets={"tumour": candidate.scores[1:]})
    with pytest.raises(UserError, match="of 7 volumes, 7 of them among the 8 test volumes"):
        world.register(short)
    assert not versions(world)


def test_a_candidate_is_read_from_the_files_of_evaluate(world, tmp_path):
    candidate = world.candidate(GOOD)
    write_patient_scores({"tumour": candidate.scores}, tmp_path / "scores")
    (tmp_path / "metrics").write_text(json.dumps(candidate.metrics))
    read = Candidate.read(
        run_id=candidate.run_id,
        folder=candidate.folder,
        per_patient=tmp_path / "scores",
        metrics=tmp_path / "metrics",
    )
    assert world.register(read).promoted


@pytest.mark.parametrize("name", ["threshold", "pooled_dice"])
def test_metrics_that_lack_one_are_refused_before_anything_is_registered(world, name):
    candidate = world.candidate(GOOD)
    rest = {key: value for key, value in candidate.metrics.items() if key != name}
    with pytest.raises(UserError, match=f"metrics lack {name}; pass the file that evaluate wrote"):
        world.register(dataclasses.replace(candidate, metrics=rest))
    assert not versions(world)


def test_the_first_of_several_targets_decides(
    make_world, local_mlflow, make_regions, regions_model, tmp_path
):
    world = make_world(make_volume=make_regions, **REGION_FORM)
    world.model_folder = lambda _: regions_model
    first = world.register(world.candidate("first", threshold=0.4))
    assert (first.promoted, first.further) == (True, {})
    path, candidate = tmp_path / "scores", world.candidate("second")
    write_patient_scores(candidate.targets, path)
    candidate = dataclasses.replace(candidate, targets=read_target_scores(path))
    found = world.register(candidate)
    assert found.targets == ("whole", "core", "enhancing")
    assert list(found.further) == ["core", "enhancing"]
    for target, comparison in {"whole": found.comparison, **found.further}.items():
        dice = [score.dice for score in candidate.targets[target]]
        assert comparison.candidate == pytest.approx(np.mean(dice))
    metrics = connect().get_run(candidate.run_id).data.metrics
    assert (
        metrics["enhancing/patient_dice_mean"] == candidate.metrics["enhancing/patient_dice_mean"]
    )
    single = dataclasses.replace(world.candidate("third"), targets={"": candidate.scores})
    with pytest.raises(UserError, match="scores of 1 targets, and the data set has 3"):
        world.register(single)
