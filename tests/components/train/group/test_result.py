import pytest

from components.shared.errors import UserError
from components.train.checkpoints import Checkpoints
from components.train.group.result import fetch_result, find_result, store_result
from tests.components.train.test_checkpoints import FakeTrainer

FOLDER = "checkpoints/a/group"


@pytest.fixture
def leave(store, tmp_path):
    def leave():
        model = tmp_path / "left" / "model"
        (model / "data").mkdir(parents=True)
        (model / "MLmodel").write_text("flavors: {}")
        (model / "data" / "weights").write_bytes(bytes(range(256)))
        (tmp_path / "left" / "history.json").write_text("[1]")
        history = tmp_path / "left" / "history.json"
        store_result(store, FOLDER, mlflow_run_id="run", model=model, history=history)

    return leave


def _fetch(store, tmp_path):
    result = find_result(store, FOLDER)
    out = tmp_path / "fetched"
    fetch_result(store, FOLDER, result, model=out / "model", history=out / "history")
    return result, out


def test_the_result_arrives_as_it_was_left(leave, store, tmp_path):
    assert find_result(store, FOLDER) is None
    leave()
    result, out = _fetch(store, tmp_path)
    assert result.mlflow_run_id == "run"
    assert (out / "history").read_text() == "[1]"
    assert (out / "model" / "data" / "weights").read_bytes() == bytes(range(256))
    assert {path.name for path in (out / "model").iterdir()} == {"MLmodel", "data"}


@pytest.mark.parametrize("lost", [False, True])
def test_a_damaged_result_is_never_taken(leave, store, tmp_path, lost):
    leave()
    digest = find_result(store, FOLDER).model["data/weights"]
    if lost:
        store.delete(f"{FOLDER}/{digest}")
    else:
        store.write(f"{FOLDER}/{digest}", bytes(256))
    with pytest.raises(UserError, match=r"missing or damaged; delete .*result\.json"):
        _fetch(store, tmp_path)


def test_a_damaged_list_is_never_taken(store):
    store.write(f"{FOLDER}/result.json", b'{"model": {}}')
    with pytest.raises(UserError, match="missing or damaged"):
        find_result(store, FOLDER)


def test_a_later_state_leaves_the_group_its_files(leave, store, tmp_path):
    """Old states are removed from the folder around."""
    leave()
    checkpoints = Checkpoints(store, "checkpoints/a", tmp_path / "work")
    checkpoints.write_last(FakeTrainer("state"))
    checkpoints.store(epoch=1, best=None)
    _fetch(store, tmp_path)
