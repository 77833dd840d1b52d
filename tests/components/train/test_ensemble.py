import json
import re

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.model.model_folder import CONFIG_FILE, write_segmenter
from components.shared.model.segmenter import load_segmenter
from components.shared.report.training_history import TrainingHistory
from components.shared.tracking.runs import log_params
from components.shared.tracking.server import connect
from components.train import ensemble
from components.train.ensemble import Member, average_models
from components.train.ensemble_settings import EnsembleSettings
from tests.components.conftest import new_run


@pytest.fixture(autouse=True)
def _stored_form_only(monkeypatch):
    def export(segmenter, folder):
        folder.mkdir()
        write_segmenter(segmenter, folder)
        return 0.0

    monkeypatch.setattr(ensemble, "export_segmenter", export)


@pytest.fixture
def members(tmp_path, local_mlflow, threshold_model):
    made = []
    for number, level in enumerate((110, 150, 250), start=1):
        label = f"fold-{number}"
        run_id = new_run(pipeline_run="many", label=label)
        log_params(connect(), run_id, {"train.seed": number})
        history = tmp_path / label
        epoch = {"epoch": float(number), "validation_dice": 0.5}
        history.write_text(TrainingHistory(epochs=(epoch,)).model_dump_json())
        made.append(Member(run_id, folder=threshold_model(level), history=history))
    return made


@pytest.fixture
def average(tmp_path):
    def average(members, folder="out", **settings):
        out = tmp_path / folder
        out.mkdir()
        run_id = average_models(
            members,
            EnsembleSettings(**settings),
            pipeline_run="many",
            dataset_id="da7a",
            split_id="5911",
            model=out / "model",
            history=out / "history.json",
        )
        return run_id, out

    return average


def test_the_model_predicts_the_mean_of_its_members(members, average):
    _, out = average(members)
    image = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    each = [load_segmenter(member.folder, "cpu")(image) for member in members]
    together = load_segmenter(out / "model", "cpu")(image)
    np.testing.assert_allclose(together, np.mean(each, axis=0), atol=1e-6)
    assert not np.allclose(together, each[0])


def test_the_run_names_its_members_and_a_retry_is_the_same_run(members, average):
    run_id, out = average(members)
    data = connect().get_run(run_id).data
    assert data.tags["label"] == "ensemble"
    assert data.params["ensemble.members"] == "3"
    assert data.params["train.seed"] == "1"
    history = TrainingHistory.model_validate_json((out / "history.json").read_bytes())
    assert list(history.members) == ["fold-1", "fold-2", "fold-3"]
    assert history.members["fold-2"].epochs[0]["epoch"] == 2
    again, second = average(members[::-1], "again")
    assert again == run_id
    for name in ("config.json", "model.safetensors"):
        written = [folder / "model" / "segmenter" / name for folder in (out, second)]
        assert written[0].read_bytes() == written[1].read_bytes()


def test_too_large_an_ensemble_is_refused_before_it_is_read(members, average, monkeypatch):
    monkeypatch.setattr(ensemble, "read_segmenter", None)
    expected = "the 3 members have 22 MiB of weights, more than ensemble.max_size_mib=21; raise"
    with pytest.raises(UserError, match=re.escape(expected)):
        average(members, max_size_mib=21)


def test_members_of_several_recipes_are_refused(members, average, tmp_path, threshold_model):
    from shutil import copytree

    other = copytree(threshold_model(110), tmp_path / "other")
    config = json.loads((other / CONFIG_FILE).read_text())
    config["network"]["min_component_fraction"] = 0.5
    (other / CONFIG_FILE).write_text(json.dumps(config))
    last = members[2]
    odd = Member(last.run_id, folder=other, history=last.history)
    expected = f"MLflow run {last.run_id} has another network than run {members[0].run_id}; an"
    with pytest.raises(UserError, match=expected):
        average([*members[:2], odd])


def test_an_ensemble_is_no_member(members, average):
    run_id, out = average(members)
    nested = Member(run_id, folder=out / "model", history=out / "history.json")
    with pytest.raises(UserError, match=f"{run_id} has an ensemble, which cannot be a member"):
        average([members[0], nested], "nested")


def test_a_damaged_member_is_named(members, average, tmp_path):
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / "config.json").write_text("{")
    (tmp_path / "segmenter" / "model.safetensors").write_bytes(b"")
    bad = Member(members[0].run_id, folder=tmp_path, history=members[0].history)
    with pytest.raises(UserError, match=f"the model of MLflow run {bad.run_id}: its config.json"):
        average([bad, members[1]])
