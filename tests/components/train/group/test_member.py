import pytest
from torch.distributed import DistNetworkError

from components.shared.errors import UserError
from components.shared.storage.store import open_store
from components.train.exit_codes import LOST_STATUS
from components.train.group.member import _restarted, train_task
from components.train.group.result import PROFILE, find_result, group_folder


@pytest.fixture(autouse=True)
def _tracking(tmp_path, monkeypatch, make_mlflow):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))


@pytest.mark.slow
def test_a_training_that_has_left_its_result_is_not_repeated(make_task, tmp_path):
    task = make_task(schedule={"epochs": 1})
    store, folder = open_store(task.store), group_folder(task.training)
    (tmp_path / "out").mkdir()
    train_task(task, cache=tmp_path / "cache", outputs=tmp_path / "out")
    result = find_result(store, folder)
    assert "MLmodel" in result.model
    before = {key: store.read(key) for key in store.keys(folder + "/")}
    train_task(task, cache=tmp_path / "cache", outputs=tmp_path / "none")  # is not written to
    assert {key: store.read(key) for key in store.keys(folder + "/")} == before


def test_a_lost_report_is_told(make_task, tmp_path):
    task = make_task()
    open_store(task.store).delete(f"{group_folder(task.training)}/{PROFILE}")
    with pytest.raises(UserError, match=r"profile\.html is missing; the step that starts"):
        train_task(task, cache=tmp_path / "cache", outputs=tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        DistNetworkError("failed to recv, got 0 bytes"),
        RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]"),
    ],
)
def test_a_lost_process_is_no_fault_of_this_one(error):
    with pytest.raises(SystemExit) as ended, _restarted():
        raise error
    assert ended.value.code == LOST_STATUS


def test_another_error_is_one():
    with pytest.raises(RuntimeError, match="shapes"), _restarted():
        raise RuntimeError("shapes do not fit")
