import http.server
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest

from pipelines import doctor
from pipelines.doctor import Check, checks


def test_a_broken_installation_is_a_finding():
    script = """
import sys
for name in ("minio", "packaging", "torch", "mlflow", "pydantic", "yaml", "numpy"):
    sys.modules[name] = None  # cannot be imported
from pipelines.doctor import checks
for check in checks("/tmp/no-such-store"):
    if check.status == "error":
        print(check.name, "|", check.found, "|", check.advice)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(" | ", 1) for line in done.stdout.splitlines())
    assert set(told) >= {"store", "device", "packages"}
    assert "import of minio" in told["store"]
    assert "packaging" in told["packages"]
    assert all("pip install 'brainseg[all]'" in told[name] for name in ("store", "packages"))


def test_a_good_machine_has_no_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    found = checks(str(tmp_path / "store"))
    assert [check.name for check in found] == [
        "store",
        "MLflow",
        "disk, cache",
        "disk, store",
        "disk, MLflow",
        "memory",
        "shared mem",
        "device",
        "Python",
        "packages",
    ]
    assert {check.status for check in found} <= {"ok", "warning"}
    assert all(check.advice for check in found if check.status != "ok")


class TestStore:
    def test_leaves_no_trace(self, tmp_path):
        assert doctor.check_store(str(tmp_path / "runs" / "new")).status == "ok"
        (tmp_path / "old").mkdir()
        assert doctor.check_store(str(tmp_path / "old")).status == "ok"
        assert [path.name for path in tmp_path.rglob("*")] == ["old"]

    def test_over_s3(self, s3_store_uri):
        check = doctor.check_store(s3_store_uri)
        assert check.status == "ok"
        assert check.found.startswith(f"{s3_store_uri}: wrote, read and deleted in ")

    @pytest.mark.parametrize(
        ("uri", "told"),
        [
            ("ftp://host/x", "give s3://bucket/prefix or a local folder"),
            ("s3://bucket/x", "no answer from http://127.0.0.1:1; check AWS_ENDPOINT_URL"),
            ("/dev/null/store", "a file stands where a folder should be"),
        ],
    )
    def test_tells_what_is_wrong(self, monkeypatch, uri, told):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        check = doctor.check_store(uri)
        assert check.status == "error"
        assert told in check.found


class TestMlflow:
    def test_without_a_server_runs_are_kept_locally(self):
        assert doctor.check_mlflow("").status == "ok"

    def test_a_server_that_is_down(self):
        check = doctor.check_mlflow("http://127.0.0.1:1")
        assert check.status == "error"
        assert "no answer from http://127.0.0.1:1" in check.found
        assert "MLFLOW_TRACKING_URI" in check.advice

    def test_a_server_that_answers(self, server):
        check = doctor.check_mlflow(server(200) + "/")
        assert check == Check("MLflow", "ok", f"{server.uri}/ answers, version 200")

    @pytest.mark.parametrize(
        ("code", "advice"),
        [
            (401, "set MLFLOW_TRACKING_USERNAME"),
            (403, "--allowed-hosts"),
            (404, "is this an MLflow server?"),
        ],
    )
    def test_a_server_that_refuses(self, server, code, advice):
        check = doctor.check_mlflow(server(code))
        assert check.status == "error"
        assert f"answers {code}" in check.found
        assert advice in check.advice

    def test_gives_the_server_name_and_password(self, server, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        doctor.check_mlflow(server(200))
        assert server.headers["Authorization"] == "Basic bWU6c2VjcmV0"
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
        doctor.check_mlflow(server(200))
        assert server.headers["Authorization"] == "Bearer token"

    def test_a_server_that_is_no_web_server(self):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=answer_rudely, args=(listening,), daemon=True).start()
            check = doctor.check_mlflow(f"http://127.0.0.1:{listening.getsockname()[1]}")
        assert check.status == "error"
        assert "check MLFLOW_TRACKING_URI" in check.advice

    def test_a_new_local_file(self, tmp_path):
        check = doctor.check_mlflow(f"sqlite:///{tmp_path}/new/mlflow.db")
        assert (check.status, check.found) == (
            "ok",
            f"{tmp_path}/new/mlflow.db will be made by the first run",
        )
        assert not (tmp_path / "new").exists()

    def test_a_local_file(self, tmp_path):
        database = sqlite3.connect(tmp_path / "mlflow.db")
        database.execute("CREATE TABLE runs (run_uuid TEXT)")
        database.execute("INSERT INTO runs VALUES ('a')")
        database.commit()
        database.close()
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        check = doctor.check_mlflow(uri)
        assert (check.status, check.found) == ("ok", f"{tmp_path}/mlflow.db holds 1 runs")

    def test_a_local_file_in_a_folder_with_an_odd_name(self, tmp_path):
        folder = tmp_path / "50% a?b#c"
        folder.mkdir()
        sqlite3.connect(folder / "mlflow.db").execute("CREATE TABLE runs (run_uuid TEXT)")
        assert doctor.check_mlflow(f"sqlite:///{folder}/mlflow.db").status == "ok"

    def test_a_file_that_another_writes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(doctor, "_TIMEOUT_S", 0.1)
        writer = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")
        check = doctor.check_mlflow(f"sqlite:///{tmp_path}/mlflow.db")
        writer.close()
        assert (check.status, check.found) == ("error", f"{tmp_path}/mlflow.db: database is locked")
        assert "end other writers" in check.advice

    def test_a_file_that_may_not_be_written(self, tmp_path, as_user):
        sqlite3.connect(tmp_path / "mlflow.db").execute("CREATE TABLE runs (run_uuid TEXT)")
        tmp_path.chmod(0o777)
        (tmp_path / "mlflow.db").chmod(0o444)
        check = as_user(lambda: doctor.check_mlflow(f"sqlite:///{tmp_path}/mlflow.db"))
        assert check.status == "error"
        assert check.found == f"{tmp_path}/mlflow.db: it cannot be written"
        assert "change its rights" in check.advice

    def test_a_folder_that_may_not_be_entered(self, tmp_path, as_user):
        tmp_path.chmod(0o755)
        (tmp_path / "closed").mkdir(mode=0o000)
        uri = f"sqlite:///{tmp_path}/closed/deep/mlflow.db"
        check = as_user(lambda: doctor.check_mlflow(uri))
        assert (check.status, check.advice) == ("error", doctor._OTHER_PLACE)
        assert f"{tmp_path}/closed cannot be written" in check.found

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "file").touch()
        check = doctor.check_mlflow(f"sqlite:///{tmp_path}/file/mlflow.db")
        assert check.status == "error"
        assert f"{tmp_path}/file is a file where a folder should be" in check.found

    def test_a_file_that_is_no_database(self, tmp_path):
        (tmp_path / "mlflow.db").write_text("no database" * 100)
        check = doctor.check_mlflow(f"sqlite:///{tmp_path}/mlflow.db")
        assert check.status == "error"
        assert "file is not a database" in check.found

    def test_other_kinds_are_left_alone(self):
        assert doctor.check_mlflow("databricks").status == "warning"


class TestMemory:
    def test_little_memory_is_told(self, monkeypatch):
        for gib, status in ((1, "error"), (3, "warning"), (8, "ok")):
            monkeypatch.setattr(doctor, "_free_memory", lambda gib=gib: gib * 2**30)
            check = doctor.check_memory()
            assert (check.status, check.found) == (status, f"{gib:.1f} GiB free")

    @pytest.mark.parametrize(
        ("files", "rest"),
        [
            (
                {
                    "memory.max": "1000",
                    "memory.current": "600",
                    "memory.stat": "anon 90\ninactive_file 100\nactive_file 5",
                },
                500,
            ),
            ({"memory.max": "max", "memory.current": "600", "memory.stat": ""}, None),
            (
                {
                    "memory/memory.limit_in_bytes": "1000",
                    "memory/memory.usage_in_bytes": "600",
                    "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50",
                },
                450,
            ),
            ({}, None),
        ],
    )
    def test_a_containers_limit_counts(self, tmp_path, files, rest):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        assert doctor._cgroup_rest(tmp_path) == rest

    def test_a_small_shared_memory_is_told(self, monkeypatch, tmp_path):
        assert doctor.check_shared_memory(tmp_path / "none").status == "ok"
        monkeypatch.setattr(doctor, "_SHARED_MEMORY_GIB", 1e9)
        check = doctor.check_shared_memory(tmp_path)
        assert check.status == "warning"
        assert "--shm-size" in check.advice


class TestDisk:
    def test_looks_at_the_nearest_folder_that_exists(self, tmp_path, monkeypatch):
        monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "no" / "cache"))
        (check,) = doctor.check_disks("s3://bucket/x", "http://mlflow:5000")
        assert check.name == "disk, cache"
        assert check.found.endswith(f"GiB free at {tmp_path}")

    def test_looks_at_each_place_that_a_local_run_writes(self, tmp_path, monkeypatch):
        for name in ("cache", "mlflow", "store"):
            (tmp_path / name).mkdir()
        monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
        found = doctor.check_disks(f"{tmp_path}/store", f"sqlite:///{tmp_path}/mlflow/mlflow.db")
        assert {check.name: check.found.split()[-1] for check in found} == {
            "disk, cache": f"{tmp_path}/cache",
            "disk, store": f"{tmp_path}/store",
            "disk, MLflow": f"{tmp_path}/mlflow",
        }

    def test_a_cache_in_the_working_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BRAINSEG_CACHE", "cache")
        (check,) = doctor.check_disks("s3://bucket/x", "")
        assert check.found.endswith(f"GiB free at {tmp_path}")

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        (tmp_path / "store").touch()
        check = doctor.check_disks(f"{tmp_path}/store", "")[1]
        assert (check.status, check.advice) == ("error", doctor._OTHER_PLACE)

    def test_little_space_is_told(self, tmp_path, monkeypatch):
        for limits, status in (((0, 1e9), "warning"), ((1e9, 1e9), "error")):
            monkeypatch.setattr(doctor, "_DISK_GIB", limits)
            found = doctor.check_disks(str(tmp_path), "")
            assert [check.status for check in found] == [status] * 2


class TestVersions:
    def test_another_python_is_told(self, monkeypatch):
        monkeypatch.setattr(doctor, "_PYTHONS", ((2, 7), (3, 2)))
        check = doctor.check_python()
        assert (check.status, check.advice) == ("error", "use Python 2.7 to 3.2")

    def test_missing_and_old_packages_are_named(self):
        requirements = [
            "numpy",
            "numpy>999",
            "no-such-package; extra == 'trainer'",
            "not-for-us; extra == 'dev'",
            "brainseg[kaggle]; extra == 'all'",
        ]
        found = metadata.version("numpy")
        assert list(doctor._missing(requirements)) == [
            f"numpy>999 (found {found})",
            "no-such-package",
        ]

    def test_packages_that_differ_from_the_tested_ones_are_named(self, tmp_path, monkeypatch):
        constraints = tmp_path / "constraints.txt"
        numpy = metadata.version("numpy")
        constraints.write_text(
            f"# tested\nnumpy=={numpy}  # why\npytest==0.1\nno-such-package==1\nminio>=7\n"
        )
        monkeypatch.setattr(doctor, "_CONSTRAINTS", constraints)
        check = doctor.check_packages()
        assert check.status == "warning"
        pytest_version = metadata.version("pytest")
        assert check.found == f"1 differ from the tested versions: pytest {pytest_version} (0.1)"
        assert "--constraint constraints.txt" in check.advice

    def test_a_missing_package_is_an_error(self, monkeypatch):
        monkeypatch.setattr(metadata, "requires", lambda _: ["no-such-package"])
        check = doctor.check_packages()
        assert (check.status, check.found) == ("error", "missing: no-such-package")

    def test_the_pythons_are_those_of_the_package(self):
        text = (Path(doctor.__file__).parents[1] / "pyproject.toml").read_text()
        assert 'requires-python = ">=3.11,<3.14"' in text
        assert doctor._PYTHONS == ((3, 11), (3, 13))


def answer_rudely(listening):
    connection, _ = listening.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH\r\n")


@pytest.fixture
def as_user(tmp_path):
    """Calls a function as a user whom file rights stop, as they do not stop root."""
    if os.geteuid() != 0:
        return lambda work: work()

    def as_user(work):
        above = {folder: folder.stat().st_mode for folder in tmp_path.parents[:2]}
        for folder in above:
            folder.chmod(0o755)
        os.setresuid(65534, 65534, 0)
        try:
            return work()
        finally:
            os.setresuid(0, 0, 0)
            for folder, mode in above.items():
                folder.chmod(mode)

    return as_user


@pytest.fixture
def server():
    """Starts a web server that answers everything with one status code."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start.headers = self.headers
            self.send_response(self.server.code)
            self.end_headers()
            self.wfile.write(str(self.server.code).encode())

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()

    def start(code):
        running.code = code
        return start.uri

    start.uri = f"http://127.0.0.1:{running.server_port}"
    yield start
    running.shutdown()
    running.server_close()
