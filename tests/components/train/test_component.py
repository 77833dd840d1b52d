import json

import pytest
from kfp import dsl

from components.shared.tracking.server import connect
from components.train.component import train


@pytest.fixture
def run(dataset, local_mlflow, tmp_path):
    """Runs the step's body as its process would."""
    (tmp_path / "manifest").write_bytes(dataset.manifest.to_json())
    (tmp_path / "split").write_bytes(dataset.split.to_json())
    (tmp_path / "report").write_text("<html></html>")

    def artifact(kind, name):
        return kind(uri=str(tmp_path / name))

    def run(settings, **changes):
        given = {
            "store": dataset.store.uri,
            "dataset_id": dataset.manifest.dataset_id,
            "split_id": dataset.split.split_id,
            "manifest": artifact(dsl.Dataset, "manifest"),
            "split": artifact(dsl.Artifact, "split"),
            "profile_report": artifact(dsl.HTML, "report"),
            "pipeline_run": f"run of {tmp_path.name}",
            "settings": settings,
            "model": artifact(dsl.Model, "model"),
            "history": artifact(dsl.Artifact, "history"),
        }
        return train.python_func(**given | changes)

    return run


def test_leaves_a_model_and_the_history_and_gives_its_run(run, make_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    # of smp's own: those of timm are exported a first time before they are trained
    encoder = {"encoder": "resnet18", "encoder_depth": 3, "decoder_channels": (16, 8, 8)}
    recipe = make_recipe(network=encoder, schedule={"epochs": 1})
    run_id = run(recipe.model_dump_json(), label="fold-1")
    assert (tmp_path / "model" / "MLmodel").is_file()
    history = json.loads((tmp_path / "history").read_text())
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1]
    found = connect().get_run(run_id)
    assert found.data.tags["label"] == "fold-1"
    assert found.data.params["train.schedule.epochs"] == "1"


@pytest.mark.slow
def test_the_launchers_identity_goes_before_the_graphs(run, make_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KFP_RUN_ID", "the launcher's")
    run_id = run(make_recipe(schedule={"epochs": 1}).model_dump_json())
    assert connect().get_run(run_id).data.tags["kfp_run_id"] == "the launcher's"


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ("{epochs: 3}", {}, "train.epochs is now train.schedule.epochs"),
        ("", {"split_id": "0123"}, "not 0123"),
        ("{epochs: 3}", {"label": "fold-2"}, "error: fold-2: train.epochs is now"),
        ("", {"dataset_id": "0123"}, "is not data set 0123"),
    ],
)
def test_a_users_mistake_is_one_line(run, capfd, settings, changes, message):
    with pytest.raises(SystemExit):
        run(settings, **changes)
    (line,) = [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("brainseg error: ")
    ]
    assert message in line
