"""Graphs in real processes: small ones, and the whole chain as a user starts it."""

import csv
import fcntl
import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.shared.errors import UserError
from pipelines.running.local import LocalRun, run_locally
from tests.pipelines import graphs
from tests.pipelines.conftest import clean_environment, command

_REAL_DATA = Path(os.environ.get("BRAINSEG_TEST_LGG", "/nowhere"))  # a .tar.xz with kaggle_3m/
_REAL_PATIENTS = 10
_SOURCE = "synthetic:12,seed=3"
_STEPS = ("ingest", "profile", "split", "train", "evaluate", "register")
_SETTINGS = (
    "train.network.image_size=32",
    "train.schedule.epochs=6",
    "train.schedule.validate_every_epochs=2",
    "train.compute.threads=1",  # other numbers, chosen under load, give other last bits
    "register.min_patient_dice=0",  # a minute of training on this is no good model
    "profile.montage_volumes=2",
    "evaluate.overlay_volumes=1",
)


class TestAnyGraph:
    def test_files_are_kept_by_name(self, tmp_path):
        before = graphs.described.pipeline_spec.SerializeToString(deterministic=True)
        result = run_locally(
            LocalRun(
                graphs.described,
                {
                    "source": "synthetic:6",
                    "store": str(tmp_path / "store"),
                    "profile_settings": "min_patients: 3",
                },
                tmp_path / "out",
            )
        )
        assert graphs.described.pipeline_spec.SerializeToString(deterministic=True) == before
        assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
        assert list(result) == ["dataset_id", "reports", "seconds"]
        assert list(result["seconds"]) == ["ingest", "profile", "total"]
        assert result["reports"] == {
            "manifest": f"{tmp_path}/out/manifest.json",
            "profile": f"{tmp_path}/out/profile.html",
        }
        assert len(json.loads((tmp_path / "out" / "manifest.json").read_text())["volumes"]) == 6
        assert "<html" in (tmp_path / "out" / "profile.html").read_text()

    def test_pipelines_and_loops_inside(self, tmp_path, capfd):
        result = run_locally(LocalRun(graphs.summed, {}, tmp_path))
        assert (result["total"], result["numbers"]) == (4 + 8 + 12, {"most": 12})
        pages = [Path(result["reports"][f"pages_{number}"]).read_text() for number in (1, 2)]
        assert pages == ["<p>10</p>", "<p>20</p>"]
        assert (tmp_path / "table.csv").read_text().startswith("value\n4")
        assert capfd.readouterr().err.count("done in") == 11

    def test_one_step_used_twice(self, tmp_path, capfd):
        sources = {"first": "synthetic:2", "second": "synthetic:3", "store": str(tmp_path / "s")}
        result = run_locally(LocalRun(graphs.twice, sources, tmp_path / "out"))
        assert result["first_id"] != result["second_id"]
        told = capfd.readouterr().err
        assert "volumes: all 2" in told
        assert "volumes: all 3" in told

    def test_a_mistake_is_made_once(self, tmp_path, capfd):
        given = {"source": "/nowhere", "store": str(tmp_path / "store")}
        with pytest.raises(UserError, match="step ingest: source /nowhere"):
            run_locally(LocalRun(graphs.described, given, tmp_path / "out"))
        assert capfd.readouterr().err.splitlines().count("ingest") == 1
        assert not (tmp_path / "out" / "result.json").exists()

    def test_a_step_that_runs_after_a_failure_does_not_hide_it(self, tmp_path, capfd):
        assert list(run_locally(LocalRun(graphs.guarded, {"value": 2}, tmp_path))["seconds"]) == [
            "double",
            "tell",
            "total",
        ]
        with pytest.raises(UserError, match="step crash crashed"):
            run_locally(LocalRun(graphs.guarded, {"value": 4}, tmp_path))
        assert capfd.readouterr().err.splitlines().count("tell") == 2

    def test_other_arguments_are_refused_before_anything_is_made(self, tmp_path):
        with pytest.raises(UserError, match="needs the parameter store"):
            run_locally(LocalRun(graphs.described, {"source": "synthetic:2"}, tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_what_a_step_prints_or_returns_starts_no_other_step(self, tmp_path, capfd):
        text = (
            "16:00:00.000 - INFO - Task 'crash' finished with status SUCCESS\n"
            "16:00:00.000 - INFO - Executing task 'register'\n"
            "say: brainseg error: all is lost \x1b[2J"
        )
        with pytest.raises(UserError, match="step crash crashed") as failed:
            run_locally(LocalRun(graphs.talking, {"text": text}, tmp_path))
        assert "ZeroDivisionError" in str(failed.value)
        told = capfd.readouterr().err
        assert [line for line in told.splitlines() if not line.startswith(" ")] == ["say", "crash"]
        assert r"brainseg error: all is lost \x1b[2J" in told

    def test_hostile_names_do_not_drive_the_terminal(self, tmp_path, write_volume, capfd):
        write_volume(tmp_path / "data", "TCGA_CS_0001_20000101")
        for name in ("a\nbrainseg error: all is lost", "\x1b[2J\x07", "x\rTask 'ingest' finished"):
            write_volume(tmp_path / "data", "TCGA_CS_0002_20000101").rename(
                tmp_path / "data" / name
            )
        arguments = {"source": str(tmp_path / "data"), "store": str(tmp_path / "store")}
        with pytest.raises(UserError, match="step profile: "):  # too few patients
            run_locally(LocalRun(graphs.described, arguments, tmp_path / "out"))
        told = capfd.readouterr().err
        assert not set("\x1b\x07\r") & set(told)
        assert [line for line in told.splitlines() if not line.startswith(" ")] == [
            "ingest",
            "profile",
        ]


class TestMlflowBeforeTheFirstStep:
    def test_a_file_that_cannot_be_made(self, refuses, tmp_path):
        (tmp_path / "file").touch()
        refuses(f"sqlite:///{tmp_path}/file/mlflow.db", "error: the local MLflow cannot be created")

    def test_a_deleted_experiment(self, refuses, make_mlflow, tmp_path):
        MlflowClient(uri := make_mlflow(tmp_path)).delete_experiment("1")
        refuses(uri, "error: MLflow's experiment 'brainseg' was deleted; ")

    def test_a_deleted_experiment_of_a_server(self, refuses, server):
        answer = {"experiment": {"experiment_id": "1", "lifecycle_stage": "deleted"}}
        refuses(server(200, answer), "error: MLflow's experiment 'brainseg' was deleted; ")

    def test_a_server_that_is_down(self, refuses, tmp_path):
        refuses("http://127.0.0.1:1", "error: MLflow at http://127.0.0.1:1 cannot be used")
        assert not (tmp_path / "brainseg-runs").exists()  # no data set was published

    @pytest.fixture
    def refuses(self, call, monkeypatch):
        """Asserts that a run with this MLflow is refused before its first step."""

        def refuses(uri, message):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            code, _, error = call(*_arguments("synthetic:4", "out"))
            assert code == 1
            assert error.startswith(message)
            assert "ingest" not in error

        return refuses


def _arguments(source, output, *changes):
    settings = [part for change in changes for part in ("--set", change)]
    return ["run", "--source", source, "--preset", "demo", "--output", output, *settings]


def _steps_alive(folder):
    """Processes of a run's steps: they have its folder in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                variables = (process / "environ").read_bytes()
            except OSError:  # it ended, or is not ours
                continue
            if f"BRAINSEG_CACHE={folder}".encode() in variables:
                found.append(process.name)
    return found


def _wait_for(condition, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder in which a run was killed after its first checkpoint."""
    folder = tmp_path_factory.mktemp("work")
    process = subprocess.Popen(
        command(*_arguments(_SOURCE, "first", *_SETTINGS)),
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = folder / "brainseg-runs" / "store" / "checkpoints"
    _wait_for(lambda: list(checkpoints.glob("*/state-*.json")) or process.poll() is not None, 1200)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return folder


@pytest.fixture(scope="module")
def first(killed, brainseg):
    _wait_for(lambda: not _steps_alive(killed), 300)
    return brainseg(*_arguments(_SOURCE, "first", *_SETTINGS), cwd=killed)


@pytest.fixture(scope="module")
def second(killed, first, brainseg):
    return brainseg(*_arguments(_SOURCE, "second", *_SETTINGS), "--json", cwd=killed)


def _result(folder, name):
    return json.loads((folder / name / "result.json").read_text())


def test_steps_end_with_a_killed_launcher(killed):
    _wait_for(lambda: not _steps_alive(killed), 300)


def test_a_killed_run_goes_on_from_its_checkpoint(killed, first):
    assert first.returncode == 0, first.stderr
    assert "resuming after epoch" in first.stderr


def test_checkpoints_are_gone_when_the_run_is_over(killed, first):
    left = (killed / "brainseg-runs" / "store" / "checkpoints").rglob("*")
    assert [path for path in left if path.is_file()] == []


def test_the_result_names_everything(killed, first):
    result = _result(killed, "first")
    metrics = result["metrics"]
    for name in ("patient_dice_mean", "patient_dice_median", "pooled_dice"):
        assert 0 <= metrics[name] <= 1
        assert metrics[f"{name}_empty_baseline"] == 0
    assert 0 < metrics["slice_dice_mean_empty_baseline"] < 1
    assert "tumour_slice_dice_mean" in metrics
    assert result["promoted"] is (metrics["patient_dice_mean"] > 0)
    assert result["model_uri"].startswith("models:/brainseg/")
    assert result["dataset_id"]
    assert result["split_id"]
    assert set(result) >= {"mlflow_run_id", "reason", "tracking_uri", "experiment_id"}
    assert list(result["seconds"]) == [*_STEPS, "total"]
    assert all(Path(path).is_file() for path in result["reports"].values())
    files = {"profile.html", "split.json", "evaluation.html", "per_patient.csv", "manifest.json"}
    assert {Path(path).name for path in result["reports"].values()} >= files


def test_the_reports_agree_with_each_other(killed, first):
    reports = _result(killed, "first")["reports"]
    split = json.loads(Path(reports["split"]).read_text())
    assert set(split) == {"train", "validation", "test"}
    assert sum(len(patients) for patients in split.values()) == 12
    with open(reports["per_patient"]) as stream:
        rows = list(csv.DictReader(stream))
    scored = {row["patient"]: [row["volume"]] for row in rows}  # all have one volume
    assert scored == split["test"]
    assert {"patient", "site", "slices", "tumour_pixels", "dice", "hd95"} <= set(rows[0])
    mean = sum(float(row["dice"]) for row in rows) / len(rows)
    expected = _result(killed, "first")["metrics"]["patient_dice_mean"]
    assert mean == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_second_run_has_the_same_ids_and_keeps_the_champion(killed, first, second):
    assert second.returncode == 0, second.stderr
    one, two = _result(killed, "first"), json.loads(second.stdout)
    assert (one["dataset_id"], one["split_id"]) == (two["dataset_id"], two["split_id"])
    assert one["mlflow_run_id"] != two["mlflow_run_id"]
    assert not two["promoted"]
    assert two["reason"]


@pytest.mark.slow
def test_mlflow_holds_one_run_per_pipeline_run_and_its_training_beneath(killed, first, second):
    client = MlflowClient(_result(killed, "first")["tracking_uri"])
    (experiment,) = [e for e in client.search_experiments() if e.name == "brainseg"]
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    trained = [runs.pop(_result(killed, name)["mlflow_run_id"]) for name in ("first", "second")]
    assert {run.data.tags["mlflow.parentRunId"] for run in trained} == set(runs)
    for run in trained:
        assert run.info.status == "FINISHED"
        assert run.data.params["train.schedule.epochs"] == "6"
        assert {"patient_dice_mean", "validation_dice"} <= set(run.data.metrics)
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert run.info.run_name.startswith("demo ")
        assert {"patient_dice_mean", "pooled_dice"} <= set(run.data.metrics)
    champion = client.get_model_version_by_alias("brainseg", "champion")
    assert champion.run_id == _result(killed, "first")["mlflow_run_id"]


@pytest.mark.slow
def test_the_champion_predicts(killed, first, brainseg):
    predicted = brainseg(
        *("predict", "--source", "synthetic:2,seed=9", "--output", "masks", "--json"),
        *("--set", "most_pictures=1", "--set", "device=cpu"),
        cwd=killed,
    )
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((killed / "masks").glob("*_mask.tif"))) == 2
    assert (killed / "masks" / "predictions.csv").is_file()
    (page,) = (killed / "masks").glob("*.html")
    assert page.read_text().count("<img") == 1


def test_a_failing_step_ends_the_run_with_its_own_message(tmp_path, call, monkeypatch, make_mlflow):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    code, _, error = call(*_arguments("synthetic:4", "out", "profile.min_patients=50"))
    assert code == 1
    assert "step profile" in error
    assert "50" in error.splitlines()[-1]
    assert error.splitlines().count("profile") == 1  # a mistake is not made again
    assert "Traceback" not in error
    assert not (tmp_path / "out" / "result.json").exists()


def test_two_runs_do_not_share_an_output_folder(tmp_path, call, monkeypatch, make_mlflow):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, error = call(*_arguments("synthetic:4", "out"))
    assert code == 1
    assert "another run is writing" in error


@pytest.mark.slow
@pytest.mark.skipif(
    not _REAL_DATA.exists(), reason="BRAINSEG_TEST_LGG names no archive of the LGG set"
)
def test_the_chain_runs_on_real_volumes(tmp_path, brainseg):
    with tarfile.open(_REAL_DATA) as archive:
        patients = set()
        for member in archive:
            if member.isfile() and member.name.count("/") == 2:
                patients.add(member.name.split("/")[1])
                if len(patients) > _REAL_PATIENTS:
                    break
            archive.extract(member, tmp_path, filter="data")
    run = brainseg(*_arguments("kaggle_3m", "out", *_SETTINGS), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    result = _result(tmp_path, "out")
    split = json.loads(Path(result["reports"]["split"]).read_text())
    assert sum(len(patients) for patients in split.values()) == _REAL_PATIENTS
