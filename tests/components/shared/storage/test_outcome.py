import json

import pytest

from components.shared.errors import UserError
from components.shared.storage.outcome import (
    Outcome,
    leave_outcome,
    leaving_failure,
    read_outcome,
    run_folder,
)
from components.shared.storage.store import open_store

UNCHANGED = Outcome(kind="unchanged", reason="nothing is new", dataset_id="da7a")


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_store_uri"))
    return open_store(str(tmp_path / "store"))


def fail(store, step, error):
    with pytest.raises(type(error)), leaving_failure(store.uri, "one", step):
        raise error


def test_an_outcome_is_found_again_by_its_pipeline_run(store):
    leave_outcome(store, "one", UNCHANGED)
    assert read_outcome(store, "one") == UNCHANGED
    assert read_outcome(store, "two") is None


def test_the_last_failure_counts(store):
    fail(store, "train", UserError("no"))
    fail(store, "evaluate", UserError("no"))
    assert read_outcome(store, "one").step == "evaluate"
    fail(store, "train", UserError("again"))
    assert (read_outcome(store, "one").step, read_outcome(store, "one").reason) == (
        "train",
        "again",
    )


def test_a_crash_is_told_by_its_last_line(store):
    fail(store, "train", ZeroDivisionError("division by zero"))
    assert read_outcome(store, "one").reason == "it crashed: ZeroDivisionError: division by zero"


def test_a_run_with_an_outcome_has_not_failed(store):
    fail(store, "register", UserError("no"))  # its first attempt
    leave_outcome(store, "one", UNCHANGED)
    assert read_outcome(store, "one") == UNCHANGED


def test_a_store_that_refuses_does_not_hide_the_reason(tmp_path, caplog):
    (tmp_path / "file").touch()
    refusing = leaving_failure(str(tmp_path / "file"), "one", "train")
    with pytest.raises(UserError, match="the real one"), refusing:
        raise UserError("the real one")
    assert "whether the step fails is not kept: store" in caplog.text


def test_an_attempt_that_ends_well_takes_the_failure_of_the_one_before_away(store):
    fail(store, "train", UserError("MLflow is away"))
    with leaving_failure(store.uri, "one", "train"):
        pass
    assert read_outcome(store, "one") is None
    assert list(store.keys("runs/")) == []


def test_a_store_that_refuses_fails_no_step_that_ends_well(tmp_path, caplog):
    (tmp_path / "file").touch()
    with leaving_failure(str(tmp_path / "file"), "one", "train"):
        pass
    assert "a file stands where a folder should be" in caplog.text


def test_without_an_identity_nothing_is_written(store):
    with pytest.raises(UserError), leaving_failure(store.uri, "", "train"):
        raise UserError("no")
    assert list(store.keys("runs/")) == []


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../etc", "a b\n", "ä", "x" * 50])
def test_any_name_has_a_folder_of_its_own_below_runs(store, name):
    leave_outcome(store, name, UNCHANGED)
    (key,) = store.keys("runs/")
    assert key == f"{run_folder(name)}outcome.json"
    assert key.count("/") == 2
    assert read_outcome(store, name) == UNCHANGED


def test_a_kubeflow_id_is_its_own_folder():
    assert run_folder("b3b0a9de-6b3c-4f8e") == "runs/b3b0a9de-6b3c-4f8e/"


def test_no_name_is_refused(store):
    with pytest.raises(UserError, match="pipeline_run is empty"):
        leave_outcome(store, "", UNCHANGED)


@pytest.mark.parametrize("name", ["outcome", "failures/train"])
def test_another_file_there_is_told(store, name):
    store.write(f"runs/one/{name}.json", json.dumps({"kind": "lost"}).encode())
    with pytest.raises(UserError, match=f"runs/one/{name}.json was not written by this version"):
        read_outcome(store, "one")


def test_a_fold_that_ends_well_takes_away_its_own_failure_and_no_others(tmp_path):
    store = open_store(str(tmp_path / "store"))
    for label in ("fold-1", "fold-2"):
        with pytest.raises(UserError), leaving_failure(store.uri, "one", "train", label):
            raise UserError("no")
    with leaving_failure(store.uri, "one", "train", "fold-2"):
        pass
    assert read_outcome(store, "one").step == "train fold-1"
