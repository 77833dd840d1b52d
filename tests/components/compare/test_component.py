import pytest
from kfp import dsl

from components.compare.component import compare


@pytest.fixture
def arguments(world):
    def artifact(kind, path, run_id):
        return kind(uri=str(path), metadata={"mlflow_run_id": run_id})

    manifest, split = world.folder / "manifest", world.folder / "split"
    manifest.write_bytes(world.dataset.manifest.to_json())
    split.write_bytes(world.dataset.split.to_json())
    trained = [world.trained[label] for label in ("dim", "right")]
    return {
        "store": world.dataset.store.uri,
        "dataset_id": world.dataset.manifest.dataset_id,
        "split_id": world.dataset.split.split_id,
        "manifest": dsl.Dataset(uri=str(manifest)),
        "split": dsl.Artifact(uri=str(split)),
        "models": [artifact(dsl.Model, one.folder, one.run_id) for one in trained],
        "histories": [artifact(dsl.Artifact, one.history, one.run_id) for one in trained[::-1]],
        "settings": "{overlay_volumes: 0, device: cpu}",
        "model": dsl.Model(uri=str(world.folder / "model")),
        "history": dsl.Artifact(uri=str(world.folder / "history")),
        "report": dsl.HTML(uri=str(world.folder / "report")),
        "table": dsl.Dataset(uri=str(world.folder / "table")),
    }


def test_the_chosen_model_goes_on_with_its_own_history_and_run(world, arguments):
    run_id = compare.python_func(**arguments)
    assert run_id == world.trained["right"].run_id
    assert arguments["model"].metadata == arguments["history"].metadata == {"mlflow_run_id": run_id}
    assert '"label": "right"' in (world.folder / "history").read_text()
    assert (world.folder / "model" / "MLmodel").is_file()


def test_a_users_mistake_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit):
        compare.python_func(**{**arguments, "settings": "treshold: 0.4"})
    assert "brainseg error: compare.treshold is not a setting" in capsys.readouterr().err
