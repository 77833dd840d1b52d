import re

from components.shared.storage.store import open_store
from components.train import finder
from pipelines.learning_rate import find_learning_rate
from pipelines.settings import load_preset

_SMALL = (
    "train.network.encoder=mobilenet_v2",
    "train.network.encoder_depth=3",
    "train.network.decoder_channels=[8, 8, 8]",
    "train.network.image_size=32",
    "train.compute.precision=32-true",
    "train.compute.threads=1",
)


def test_a_source_and_the_data_set_it_became_give_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(finder, "STEPS", 40)
    preset = load_preset("demo", _SMALL, ("ingest", "split", "train"))
    store = open_store(str(tmp_path / "store"))
    found = find_learning_rate(preset, store, tmp_path / "out", source="synthetic:8")
    page = found.report.read_text()
    assert found.report.parent == tmp_path / "out"
    assert f"--set train.optimiser.learning_rate={found.learning_rate:.2g}" in page
    assert found.reason in page
    assert page.count("data:image/svg+xml") == 1
    dataset_id = re.search(r"data set ([0-9a-f]{16})", page)[1]
    again = find_learning_rate(preset, store, tmp_path / "again", dataset_id=dataset_id)
    assert again.reason == found.reason
