import pytest
from kfp import dsl

from components.aggregate.component import aggregate


@pytest.fixture
def arguments(world):
    def artifact(kind, path, run_id):
        return kind(uri=str(path), metadata={"mlflow_run_id": run_id})

    return {
        "store": world.store.uri,
        "dataset_id": world.manifest.dataset_id,
        "manifest": dsl.Dataset(uri=str(world.folder / "manifest")),
        # KFP's lists are in the order of the loop's rounds; nothing relies on it
        "models": [artifact(dsl.Model, one.model, one.run_id) for one in world.files],
        "per_patient": [
            artifact(dsl.Dataset, one.per_patient, one.run_id) for one in world.files[::-1]
        ],
        "settings": "{overlay_volumes: 1, device: cpu}",
        "report": dsl.HTML(uri=str(world.folder / "report")),
        "table": dsl.Dataset(uri=str(world.folder / "table")),
        "metrics": dsl.Metrics(uri=str(world.folder / "metrics")),
    }


def test_the_step_finds_each_folds_scores_by_its_run(arguments):
    run_id = aggregate.python_func(**arguments)
    assert run_id not in [one.metadata["mlflow_run_id"] for one in arguments["models"]]
    assert arguments["metrics"].metadata["folds"] == 2
    assert arguments["metrics"].metadata["patients"] == 10


def test_a_missing_fold_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit):
        aggregate.python_func(**{**arguments, "models": arguments["models"][:1]})
    assert "brainseg error: 5 of 10 patients are not tested by exactly" in capsys.readouterr().err
