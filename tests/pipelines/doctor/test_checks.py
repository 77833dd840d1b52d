import subprocess
import sys

from pipelines.doctor.checks import run_checks


def test_a_broken_installation_is_a_finding():
    script = """
import sys
for name in ("minio", "packaging", "torch", "mlflow", "pydantic", "yaml", "numpy"):
    sys.modules[name] = None  # cannot be imported
from pipelines.doctor.checks import run_checks
for check in run_checks("/tmp/no-such-store"):
    if check.status == "error":
        print(check.name, "|", check.found, "|", check.advice)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" | ", 1) for line in done.stdout.splitlines())
    assert set(found) >= {"store", "device", "packages"}
    assert "import of minio" in found["store"]
    assert "packaging" in found["packages"]
    assert all("pip install 'brainseg[all]'" in found[name] for name in ("store", "packages"))


def test_a_good_machine_has_no_errors(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    found = run_checks(str(tmp_path / "store"))
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
