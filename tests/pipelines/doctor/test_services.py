import socket
import sqlite3
import threading

import pytest
from mlflow import MlflowClient

from components.shared.tracking.local import ensure_local
from pipelines.doctor.check import OTHER_PLACE, Check
from pipelines.doctor.services import check_mlflow, check_store


class TestStore:
    def test_leaves_no_trace(self, tmp_path):
        assert check_store(str(tmp_path / "runs" / "new")).status == "ok"
        (tmp_path / "old").mkdir()
        assert check_store(str(tmp_path / "old")).status == "ok"
        assert [path.name for path in tmp_path.rglob("*")] == ["old"]

    def test_over_s3(self, s3_store_uri):
        check = check_store(s3_store_uri)
        assert check.status == "ok"
        assert check.found.startswith(f"{s3_store_uri}: wrote, read and deleted in ")

    @pytest.mark.parametrize(
        ("uri", "expected"),
        [
            ("ftp://host/x", "give s3://bucket/prefix or a local folder"),
            ("s3://bucket/x", "no answer from http://127.0.0.1:1; check AWS_ENDPOINT_URL"),
            ("/dev/null/store", "a file stands where a folder should be"),
        ],
    )
    def test_tells_what_is_wrong(self, monkeypatch, uri, expected):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        check = check_store(uri)
        assert check.status == "error"
        assert expected in check.found


class TestMlflow:
    def test_without_a_server_runs_are_kept_locally(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert check_mlflow().status == "ok"

    def test_a_server_that_is_down(self, asked):
        check = asked("http://127.0.0.1:1")
        assert check.status == "error"
        assert "MLflow at http://127.0.0.1:1 cannot be used: connection refused" in check.found
        assert "MLFLOW_TRACKING_URI" in check.found

    def test_a_large_file_is_stored_on_demand(self, tmp_path, asked, monkeypatch):
        monkeypatch.setattr("components.shared.tracking.probe.MODEL_BYTES", 2_000_000)
        ensure_local(uri := f"sqlite:///{tmp_path}/mlflow.db")
        found = f"{uri}: stored, listed and read an artifact and a file of 2 MB"
        assert asked(uri, deep=True) == Check("MLflow", "ok", found)

    def test_a_deleted_experiment(self, server, asked, tmp_path):
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        ensure_local(uri)
        MlflowClient(uri).delete_experiment("1")
        deleted = {"experiment_id": "1", "lifecycle_stage": "deleted"}
        for check in (asked(uri), asked(server(200, {"experiment": deleted}))):
            assert check.status == "error"
            assert "was deleted; restore it with `mlflow experiments restore" in check.found

    @pytest.mark.parametrize(
        ("code", "error", "advice"),
        [
            (401, "UNAUTHENTICATED", "set MLFLOW_TRACKING_USERNAME"),
            (403, "PERMISSION_DENIED", "--allowed-hosts"),
            (404, "ENDPOINT_NOT_FOUND", "must be that of an MLflow server"),
        ],
    )
    def test_a_server_that_refuses(self, server, asked, code, error, advice):
        check = asked(server(code, {"error_code": error, "message": "no"}))
        assert check.status == "error"
        assert advice in check.found

    def test_gives_the_server_name_and_password(self, server, asked, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        asked(server(200, {}))
        assert server.headers["Authorization"] == "Basic bWU6c2VjcmV0"

    def test_a_server_that_is_no_web_server(self, asked):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=answer_rudely, args=(listening,), daemon=True).start()
            check = asked(f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert check.status == "error"
        assert "cannot be used" in check.found

    def test_a_web_server_that_is_not_mlflows(self, server, asked):
        check = asked(server(200, "welcome"))
        assert check.status == "error"
        assert "cannot be used" in check.found

    def test_a_new_local_file(self, tmp_path, asked):
        check = asked(f"sqlite:///{tmp_path}/new/mlflow.db")
        assert (check.status, check.found) == (
            "ok",
            f"{tmp_path}/new/mlflow.db will be created by the first run",
        )
        assert not (tmp_path / "new").exists()

    def test_a_local_file_in_a_folder_with_an_odd_name(self, tmp_path, asked):
        uri = f"sqlite:///{tmp_path}/a b#c/mlflow.db"
        ensure_local(uri)
        found = f"{uri}: stored, listed and read an artifact"
        assert asked(uri) == Check("MLflow", "ok", found)

    def test_a_database_of_another_is_left_alone(self, tmp_path, asked):
        file = tmp_path / "other.db"
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE patients (name TEXT)")
        database.close()
        before = file.read_bytes()
        check = asked(f"sqlite:///{file}")
        assert (check.status, check.found) == ("error", f"{file}: no such table: runs")
        assert file.read_bytes() == before

    def test_a_file_that_another_writes(self, tmp_path, asked):
        writer = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")
        check = asked(f"sqlite:///{tmp_path}/mlflow.db", lock_timeout_s=0.1)
        writer.close()
        assert (check.status, check.found) == ("error", f"{tmp_path}/mlflow.db: database is locked")
        assert "end other writers" in check.advice

    def test_a_file_that_may_not_be_written(self, public_path, asked, without_root):
        sqlite3.connect(public_path / "mlflow.db").execute("CREATE TABLE runs (run_uuid TEXT)")
        public_path.chmod(0o777)
        (public_path / "mlflow.db").chmod(0o444)
        with without_root():
            check = asked(f"sqlite:///{public_path}/mlflow.db")
        assert check.status == "error"
        assert check.found == f"{public_path}/mlflow.db: it cannot be written"
        assert "change its rights" in check.advice

    def test_a_folder_that_may_not_be_entered(self, public_path, asked, without_root):
        (public_path / "closed").mkdir(mode=0o000)
        with without_root():
            check = asked(f"sqlite:///{public_path}/closed/deep/mlflow.db")
        assert (check.status, check.advice) == ("error", OTHER_PLACE)
        assert f"{public_path}/closed cannot be written" in check.found

    def test_a_file_in_place_of_the_folder(self, tmp_path, asked):
        (tmp_path / "file").touch()
        check = asked(f"sqlite:///{tmp_path}/file/mlflow.db")
        assert check.status == "error"
        assert f"{tmp_path}/file is a file where a folder should be" in check.found

    def test_a_file_that_is_no_database(self, tmp_path, asked):
        (tmp_path / "mlflow.db").write_text("no database" * 100)
        check = asked(f"sqlite:///{tmp_path}/mlflow.db")
        assert check.status == "error"
        assert "file is not a database" in check.found

    def test_a_kind_that_mlflow_does_not_know(self, asked):
        check = asked("gopher://host")
        assert check.status == "error"
        assert "gopher" in check.found


@pytest.fixture
def asked(monkeypatch):
    """Checks the MLflow of a URI."""

    def ask(uri, **options):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        return check_mlflow(**options)

    return ask


def answer_rudely(listening):
    connection, _ = listening.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH\r\n")
