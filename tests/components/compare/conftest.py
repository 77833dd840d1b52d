"""Four real models on one data set of twelve patients, four of them for the validation."""

import json

import pytest

from components.compare.candidates import Trained
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import make_split
from components.shared.storage.store import open_store
from components.shared.tracking.runs import log_metrics
from components.shared.tracking.server import connect
from tests.components.conftest import new_run

LEVELS = {
    "dim": 110,
    "right": 150,
    "twin": 150,
    "blind": 250,
}  # the tumours are found best with 150


class World:
    """A data set, its split, and what the trainings of one pipeline run left."""

    def __init__(self, folder, publish, make_blob, threshold_model):
        self.folder = folder
        store = open_store(str(folder / "store"))
        manifest = publish(store, [make_blob(seed) for seed in range(12)])
        volumes = manifest.volumes
        split = make_split({"train": volumes[:5], "validation": volumes[5:9], "test": volumes[9:]})
        self.dataset = SplitDataset(store, folder / "cache", manifest, split)
        self.trained = {
            label: self.train(label, threshold_model(level)) for label, level in LEVELS.items()
        }

    def train(self, label, model, **changes):
        split_id = self.dataset.split.split_id
        run_id = new_run(
            **{"pipeline_run": "many", "label": label, "split_id": split_id, **changes}
        )
        log_metrics(connect(), run_id, {"validation_dice": 0.5}, step=1)
        history = self.folder / f"history-{label}"
        history.write_text(json.dumps([{"epoch": 1, "label": label}]))
        return Trained(run_id, folder=model, history=history)

    def lose_the_test_part(self):
        """Deletes the voxels of the test patients, so that reading them fails."""
        for entry in self.dataset.entries("test"):
            self.dataset.store.delete(f"volumes/{entry.digest[:2]}/{entry.digest}.safetensors")


@pytest.fixture
def world(tmp_path, no_mlflow, monkeypatch, make_mlflow, publish, make_blob, threshold_model):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    return World(tmp_path, publish, make_blob, threshold_model)


@pytest.fixture(scope="module")
def module_world(tmp_path_factory, make_mlflow, publish, make_blob, threshold_model):
    """A world that tests only read."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", make_mlflow(folder))
        yield World(folder, publish, make_blob, threshold_model)
