import html
import re

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from components.shared.storage.store import open_store
from components.train import finder
from components.train.finder import judge_sweep
from pipelines import learning_rate
from pipelines.learning_rate import find_learning_rate
from pipelines.settings.presets import load_preset

_SMALL = (
    "train.network.encoder=mobilenet_v2",
    "train.network.encoder_depth=3",
    "train.network.decoder_channels=[8, 8, 8]",
    "train.network.image_size=32",
    "train.compute.precision=32-true",
    "train.compute.threads=1",
)


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch, make_mlflow):
    """A cache and a local MLflow of their own."""
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))


def test_a_source_and_the_data_set_it_became_give_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(finder, "STEPS", 40)
    preset = load_preset("demo", _SMALL, ("ingest", "split", "train", "register"))
    store = open_store(str(tmp_path / "store"))
    found = find_learning_rate(preset, store, tmp_path / "out", source="synthetic:8")
    page = found.report.read_text()
    assert found.report.parent == tmp_path / "out"
    assert f"--set train.optimizer.learning_rate={found.learning_rate:.2g}" in page
    assert found.reason in page
    assert page.count("data:image/svg+xml") == 1
    dataset_id = re.search(r"data set ([0-9a-f]{16})", page)[1]
    again = find_learning_rate(preset, store, tmp_path / "again", dataset_id=dataset_id)
    assert again.reason == found.reason
    assert found.scope == ""
    run = MlflowClient().get_run(found.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset_id"] == dataset_id
    assert run.data.params["train.network.encoder"] == "mobilenet_v2"
    assert float(run.data.params["train.optimizer.found_learning_rate"]) == found.learning_rate
    files = MlflowClient().list_artifacts(run.info.run_id, "training")
    path = "training/learning_rate_search"
    assert [file.path for file in files] == [f"{path}.png", f"{path}.txt"]
    assert load_text(f"runs:/{run.info.run_id}/{path}.txt") == found.reason


def test_of_two_networks_the_first_is_searched_on_the_scans_that_it_trains_on(
    tmp_path, monkeypatch
):
    missing = []

    def search(recipe, segmenter, volumes):
        assert segmenter.context_slices == recipe.network.context_slices == 0
        missing.append([volume.entry.missing for volume in volumes])
        return judge_sweep([1e-3, 1e-2], [1.0, 2.0])

    monkeypatch.setattr(learning_rate, "search_learning_rate", search)
    store = open_store(str(tmp_path / "store"))
    for second in ([], ["train.flair_network=null"]):
        changes = ("train.network.image_size=32", "train.compute.threads=1", *second)
        preset = load_preset("buda2019", changes, ("ingest", "split", "train", "register"))
        found = find_learning_rate(preset, store, tmp_path / "out", source="synthetic:8")
        page = found.report.read_text()
        assert f"{len(missing[-1])} training volumes" in page
        told = "the first of the recipe's two networks, on scans that have all sequences"
        assert (told in found.scope) == (told in html.unescape(page)) == (not second)
    whole, every = missing
    assert whole == [found for found in every if not found]
    assert len(whole) < len(every)
