"""Inference in shards: what is new is predicted once, whatever is killed or meets."""

import shutil
import threading
from pathlib import Path

import pytest
import tifffile

from components.predict import sharding
from components.predict.planning import InferencePlan, plan_predictions
from components.predict.prediction import predict_source
from components.predict.settings import PredictSettings
from components.predict.sharding import predict_shard
from components.predict.stored import StoredPredictions
from components.shared.storage.store import FolderStore
from tests.components.predict.conftest import DyingStore, Interrupted

SETTINGS = PredictSettings(device="cpu", shard_volumes=2)
NAMES = ("TCGA_CS_0001_19990101", "TCGA_DU_0002_19990101", "TCGA_FG_0003_19990101")


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


@pytest.fixture
def predictions_made(monkeypatch):
    """Names of the cases that the network has predicted."""
    made = []
    predict = sharding.predict_scan

    def count(task, scan, volume, watch):
        made.append(scan.name.volume)
        return predict(task, scan, volume, watch)

    monkeypatch.setattr(sharding, "predict_scan", count)
    return made


def plan(model, source, store, settings=SETTINGS):
    return plan_predictions(model, str(source), store, settings)


def work(planned, store, settings=SETTINGS, run="run-1"):
    for shard in planned.shards(settings.shard_volumes):
        predict_shard(planned, store, settings, **shard, pipeline_run=run)


def contents(store):
    """All that predictions consist of, without times of rows."""
    return {
        key: store.read(key) for key in store.keys("predictions/") if not key.endswith("row.json")
    }


def test_masks_and_rows_are_those_of_predict(register, incoming, store, tmp_path):
    model = register("as-predict")
    planned = plan(model, incoming, store)
    assert (planned.cases, planned.known, planned.refused) == (NAMES, 0, {})
    assert planned.shards(2) == [{"index": 0, "count": 2}, {"index": 1, "count": 2}]
    work(planned, store)
    expected = predict_source(model, str(incoming), tmp_path / "out", SETTINGS)
    rows = StoredPredictions(store, model).rows()
    for row, one in zip(rows, expected.volumes, strict=True):
        assert {**row.model_dump(), **one.model_dump()} == row.model_dump()
        assert store.read(row.mask) == (tmp_path / "out" / f"{row.volume}_mask.tif").read_bytes()
        assert row.mask.startswith(f"predictions/as-predict/1/cases/{row.volume}/")
    first = rows[0]
    assert (first.patient, first.site, first.date) == ("TCGA_CS_0001", "CS", "19990101")
    assert (first.model, first.threshold, first.pipeline_run) == (model, 0.5, "run-1")
    assert first.seconds > 0
    assert len(first.digest) == 64


def test_only_new_content_is_predicted_by_the_next_run(
    register, incoming, store, predictions_made, write_scan, make_blob
):
    model = register("nightly")
    work(plan(model, incoming, store), store)
    again = plan(model, incoming, store)
    assert (again.cases, again.known) == ((), 3)
    assert again.shards(2) == [{"index": 0, "count": 1}]
    work(again, store)
    write_scan(incoming, make_blob(9), "TCGA_HT_0009_19990101", masks=False)
    first = incoming / NAMES[0] / f"{NAMES[0]}_1.tif"
    tifffile.imwrite(first, 255 - tifffile.imread(first), photometric="rgb")  # of the same size
    (incoming / NAMES[1] / f"{NAMES[1]}_1.tif").touch()  # nothing but its time
    grown = plan(model, incoming, store)
    assert grown.cases == (NAMES[0], NAMES[1], "TCGA_HT_0009_19990101")
    del predictions_made[:]
    work(grown, store, run="run-2")
    assert sorted(predictions_made) == [NAMES[0], "TCGA_HT_0009_19990101"]
    assert plan(model, incoming, store).cases == ()
    runs = {(row.volume, row.pipeline_run) for row in StoredPredictions(store, model).rows()}
    assert runs == {
        *((name, "run-1") for name in NAMES),
        *((name, "run-2") for name in (NAMES[0], "TCGA_HT_0009_19990101")),
    }


def test_another_version_predicts_everything_again(register, incoming, store):
    work(plan(register("versions"), incoming, store), store)
    second = plan(register("versions", level=200), incoming, store)
    assert second.cases == NAMES
    work(second, store)
    masks = {row.mask for number in (1, 2) for row in rows_of(store, f"models:/versions/{number}")}
    assert len(masks) == 6


def rows_of(store, model):
    return StoredPredictions(store, model).rows()


@pytest.mark.parametrize("writes", range(9))
def test_a_killed_shard_repeats_its_unfinished_case_alone(
    register, incoming, tmp_path, predictions_made, writes
):
    model = register("killed")
    whole = FolderStore(tmp_path / "whole")
    planned = plan(model, incoming, whole)
    work(planned, whole)
    store = DyingStore(tmp_path / "store", writes=10**6)
    planned = plan(model, incoming, store)
    store.left = writes
    with pytest.raises(Interrupted):
        work(planned, store)
    done = {row.volume for row in rows_of(store, model)}
    assert all(store.exists(row.mask) for row in rows_of(store, model))
    del predictions_made[:]
    work(planned, FolderStore(tmp_path / "store"))
    assert sorted(predictions_made) == sorted(set(NAMES) - done)
    assert contents(store) == contents(whole)


def test_two_runs_at_once_write_each_case_once(register, incoming, store):
    model = register("meeting")
    planned = [plan(model, incoming, store) for _ in range(2)]
    threads = [
        threading.Thread(target=work, args=(one, store), kwargs={"run": f"run-{number}"})
        for number, one in enumerate(planned)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = list(store.keys("predictions/meeting/1/cases/"))
    assert len(keys) == 6
    assert [row.volume for row in rows_of(store, model)] == list(NAMES)
    assert plan(model, incoming, store).cases == ()


def test_a_bad_case_is_refused_in_each_run_until_it_is_fixed(register, incoming, store):
    model = register("refusing")
    broken = incoming / NAMES[1] / f"{NAMES[1]}_2.tif"
    content = broken.read_bytes()
    broken.write_bytes(content[:50])
    planned = plan(model, incoming, store)
    work(planned, store)
    rows = rows_of(store, model)
    assert [row.status for row in rows] == ["ok", "refused", "ok"]
    assert f"{NAMES[1]}_2.tif" in rows[1].reason
    assert plan(model, incoming, store).cases == (NAMES[1],)
    broken.write_bytes(content)
    work(plan(model, incoming, store), store)
    assert [row.status for row in rows_of(store, model)] == ["ok", "ok", "ok"]


def test_cases_that_go_after_the_plan_are_left_out(register, incoming, store, caplog):
    model = register("leaving")
    planned = plan(model, incoming, store)
    shutil.rmtree(incoming / NAMES[2])
    work(planned, store)
    assert [row.volume for row in rows_of(store, model)] == list(NAMES[:2])
    assert f"1 planned cases are gone, e.g. {NAMES[2]}" in caplog.text


def test_the_model_is_not_loaded_for_nothing(incoming, store):
    planned = InferencePlan(model="models:/none/1", source="none", cases=(), refused={}, known=3)
    work(planned, store)
    assert not Path(store.root).exists()
