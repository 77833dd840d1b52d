import pytest

from pipelines.doctor.check import Thresholds
from pipelines.doctor.machine import (
    check_device,
    check_disks,
    check_memory,
    check_shared_memory,
)

NEVER_ENOUGH = {
    "ok": Thresholds(error=0, warning=0),
    "warning": Thresholds(error=0, warning=1e9),
    "error": Thresholds(error=1e9, warning=1e9),
}


@pytest.mark.parametrize(("status", "least_gib"), NEVER_ENOUGH.items())
def test_too_little_is_told(tmp_path, status, least_gib):
    found = [
        check_memory(least_gib),
        check_shared_memory(tmp_path, least_gib),
        *check_disks(str(tmp_path), "", least_gib),
    ]
    assert [check.status for check in found] == [status] * 4
    assert all(bool(check.advice) == (status != "ok") for check in found)


def test_a_system_without_shared_memory(tmp_path):
    assert check_shared_memory(tmp_path / "none").status == "ok"


def test_the_cores_that_a_process_may_use(monkeypatch):
    monkeypatch.setattr("pipelines.doctor.machine.usable_cores", lambda: 3)
    assert check_device().found.startswith("3 CPU cores, no GPU (torch ")


class TestDisk:
    def test_looks_at_the_nearest_folder_that_exists(self, tmp_path, monkeypatch):
        monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "no" / "cache"))
        (check,) = check_disks("s3://bucket/x", "http://mlflow:5000")
        assert check.name == "disk, cache"
        assert check.found.endswith(f"GiB free at {tmp_path}")

    def test_looks_at_each_place_that_a_local_run_writes(self, tmp_path, monkeypatch):
        for name in ("cache", "mlflow", "store"):
            (tmp_path / name).mkdir()
        monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
        found = check_disks(f"{tmp_path}/store", f"sqlite:///{tmp_path}/mlflow/mlflow.db")
        assert {check.name: check.found.split()[-1] for check in found} == {
            "disk, cache": f"{tmp_path}/cache",
            "disk, store": f"{tmp_path}/store",
            "disk, MLflow": f"{tmp_path}/mlflow",
        }

    def test_a_cache_in_the_working_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BRAINSEG_CACHE", "cache")
        (check,) = check_disks("s3://bucket/x", "")
        assert check.found.endswith(f"GiB free at {tmp_path}")

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "store").touch()
        check = check_disks(f"{tmp_path}/store", "")[1]
        assert check.status == "error"
        assert check.found == f"{tmp_path}/store is a file where a folder should be"
