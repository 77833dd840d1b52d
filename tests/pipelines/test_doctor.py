import http.server
import sqlite3
import threading
from importlib import metadata
from pathlib import Path

import pytest

from pipelines import doctor
from pipelines.doctor import Check, checks


def test_a_good_machine_has_no_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    found = checks(str(tmp_path / "store"))
    assert [check.name for check in found] == [
        "store",
        "MLflow",
        "disk, cache",
        "disk, store",
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
        assert doctor.check_store(str(tmp_path / "new")).status == "ok"
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

    def test_a_new_local_file(self, tmp_path):
        check = doctor.check_mlflow(f"sqlite:///{tmp_path}/new/mlflow.db")
        assert check.status == "ok"
        assert not (tmp_path / "new").exists()

    def test_a_local_file(self, tmp_path):
        database = sqlite3.connect(tmp_path / "mlflow.db")
        database.execute("CREATE TABLE runs (run_uuid TEXT)")
        database.execute("INSERT INTO runs VALUES ('a')")
        database.commit()
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        check = doctor.check_mlflow(uri)
        assert (check.status, check.found) == ("ok", f"{tmp_path}/mlflow.db holds 1 runs")

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
        (check,) = doctor.check_disks("s3://bucket/x")
        assert check.name == "disk, cache"
        assert check.found.endswith(f"GiB free at {tmp_path}")

    def test_little_space_is_told(self, tmp_path, monkeypatch):
        monkeypatch.setattr(doctor, "_DISK_GIB", (0, 1e9))
        assert [check.status for check in doctor.check_disks(str(tmp_path))] == ["warning"] * 2
        monkeypatch.setattr(doctor, "_DISK_GIB", (1e9, 1e9))
        assert [check.status for check in doctor.check_disks(str(tmp_path))] == ["error"] * 2


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
