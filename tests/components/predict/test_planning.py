"""The plan of an inference: what is new, from one listing."""

import pytest

from components.predict import planning
from components.predict.planning import plan_predictions
from components.predict.settings import PredictSettings
from components.predict.stored import StoredPredictions
from components.shared.errors import UserError
from components.shared.storage.store import FolderStore
from tests.components.predict.simulated import SimulatedSource

SETTINGS = PredictSettings(device="cpu")


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def plan(model, source, store, settings=SETTINGS):
    return plan_predictions(model, str(source), store, settings)


def test_the_champion_is_its_version(register, incoming, store):
    register("planned")
    register("planned", level=200)
    named = PredictSettings(model_name="planned")
    assert plan("champion", incoming, store, named).model == "models:/planned/2"
    assert plan("models:/planned@champion", incoming, store).model == "models:/planned/2"
    with pytest.raises(UserError, match="has no model 'unplanned'"):
        plan("champion", incoming, store, PredictSettings(model_name="unplanned"))


def test_ten_thousand_cases_are_planned_from_one_listing(register, store, monkeypatch):
    source = SimulatedSource(10_000, channels=("t2f",))
    monkeypatch.setattr(planning, "open_source", source.open)
    settings = PredictSettings(
        layout={"name": "declared", "channels": {"FLAIR": "{case}/{case}-t2f.nii.gz"}}
    )
    planned = plan(register("many"), source.uri, store, settings)
    assert (len(planned.cases), planned.known, planned.refused) == (10_000, 0, {})
    assert planned.shards(settings.shard_volumes)[-1] == {"index": 99, "count": 100}
    assert source.calls == ["files"]
    assert set(store.keys("predictions/")) == {"predictions/many/1/version.json"}
    assert len(planned.model_dump_json()) < 300_000


def test_cases_that_the_listing_refuses_have_their_reasons(register, incoming, store):
    (incoming / "TCGA_CS_0001").mkdir()
    (incoming / "TCGA_CS_0001" / "a.tif").write_bytes(b"")
    planned = plan(register("listed"), incoming, store)
    assert len(planned.cases) == 3
    assert list(planned.refused) == ["TCGA_CS_0001"]
    assert "the folder's name is not" in planned.refused["TCGA_CS_0001"]


def test_a_source_without_a_case_is_refused(register, tmp_path, store):
    model = register("nothing")
    (tmp_path / "in" / "notes").mkdir(parents=True)
    (tmp_path / "in" / "notes" / "a.tif").write_bytes(b"")
    with pytest.raises(UserError, match="holds no usable volume"):
        plan(model, tmp_path / "in", store)


@pytest.mark.parametrize("uri", ["runs:/0/model", "here", "models:/m-0123"])
def test_a_model_without_a_version_is_refused(uri, store, incoming, local_mlflow, monkeypatch):
    monkeypatch.setattr(planning, "resolve_model", lambda model, _: model)
    with pytest.raises(UserError, match="belong to a registered version, not"):
        plan(uri, incoming, store)


def test_predictions_of_another_model_with_this_name_are_refused(register, incoming, store):
    model = register("mistaken")
    StoredPredictions(store, model).claim("another run")
    with pytest.raises(UserError, match="predictions of another model with this name and number"):
        plan(model, incoming, store)
