"""The steps on a cluster with KFP's MLflow plugin, played against a real server."""

import contextlib
import json
import os
from unittest import mock

import pytest
from kfp import dsl
from mlflow import MlflowClient

from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.register.component import register
from components.shared.environment import adopt_settings
from components.shared.errors import UserError
from components.shared.storage.store import open_store
from components.shared.tracking.runs import log_headline, log_metrics, log_outcome, recording
from components.shared.tracking.server import connect
from components.shared.tracking.status import parent_of, pipeline_run_of, training_digest
from components.shared.tracking.tree import end_pipeline_run
from components.split.component import split
from components.train.component import train
from tests.components.conftest import new_run
from tests.components.kfp_plugin import Plugin

RECIPE = (
    "{network: {encoder: mobilenet_v2, encoder_depth: 3, encoder_weights: none, image_size: 32, "
    "decoder_channels: [16, 8, 8]}, schedule: {epochs: 1}, sampling: {batch_size: 8}, "
    "compute: {device: cpu, threads: 1}}"
)


@pytest.fixture
def plugin(no_mlflow, mlflow_server_uri):
    return Plugin(mlflow_server_uri)


@contextlib.contextmanager
def attempt(plugin, task=None):
    """The process of one attempt of a task, as far as its variables go."""
    with mock.patch.dict(os.environ, plugin.variables(task)):
        adopt_settings()
        yield connect()


def runs_of(plugin):
    """All runs of the plugin's experiment by their ids."""
    found = MlflowClient(plugin.endpoint).search_runs([plugin.experiment])
    return {run.info.run_id: run for run in found}


def open_training(plugin, label=""):
    return new_run(pipeline_run=plugin.kfp_run, label=label)


def test_a_task_that_is_tried_again_goes_on_in_its_run(plugin):
    task = plugin.start_task("train")
    with attempt(plugin, task):
        assert open_training(plugin) == task
        with pytest.raises(KeyError), recording(task):
            raise KeyError
    plugin.end_attempt(task, "FAILED", {"label": ""})
    with attempt(plugin, task) as client:
        assert open_training(plugin) == task
        with recording(task):
            assert client.get_run(task).info.status == "RUNNING"
            assert client.get_run(plugin.root).info.status == "RUNNING"
            log_metrics(client, task, {"dice": 0.8})
    assert runs_of(plugin)[task].info.status == "RUNNING"  # the launcher ends it
    plugin.end_attempt(task, "FINISHED", {"label": ""})
    assert {run_id: run.info.status for run_id, run in runs_of(plugin).items()} == {
        task: "FINISHED",
        plugin.root: "RUNNING",
    }


def test_a_later_task_logs_to_the_training_and_says_so_on_its_own_run(plugin):
    first, second = (plugin.start_task(name) for name in ("train", "evaluate"))
    with attempt(plugin, first):
        training = open_training(plugin, label="fold-1")
    plugin.end_attempt(first, "FINISHED")
    for status in ("FAILED", "FINISHED"):  # two attempts
        with attempt(plugin, second) as client, recording(training):
            assert client.get_run(second).info.status == "RUNNING"
            log_metrics(client, training, {"dice": 0.8})
            log_headline(client, training, ["dice"])
        plugin.end_attempt(second, status, metrics={"dice": 0.8})
    found = runs_of(plugin)
    assert found[second].data.tags["training_run_id"] == training == first
    assert found[second].data.tags["label"] == "fold-1"
    assert not training_digest(found[second])
    assert found[training].data.metrics == {"dice": 0.8}
    assert found[plugin.root].data.metrics == {"fold-1/dice": 0.8}
    assert [found[task].info.status for task in (first, second)] == ["FINISHED"] * 2


def test_the_outcome_is_shown_above_all_loops(plugin, tmp_path):
    loop = plugin.start_task("for-loop-1")
    plugin.end_attempt(loop, "FINISHED")  # by the driver, before its rounds begin
    trainings = []
    for label in ("fold-1", "fold-2"):
        task = plugin.start_task("train", parent=loop)
        with attempt(plugin, task) as client:
            trainings.append(open_training(plugin, label))
            log_metrics(client, task, {"dice": 0.7})
            log_headline(client, task, ["dice"])
        plugin.end_attempt(task, "FINISHED")
    last, store = plugin.start_task("register"), open_store(str(tmp_path))
    with attempt(plugin, last) as client, recording(trainings[1]):
        for training in trainings:
            folder = training_digest(client.get_run(training))
            store.write(f"checkpoints/{folder}/last.ckpt", b"state")
        log_outcome(client, trainings[1], ["dice"], {"decision": "promoted"})
        end_pipeline_run(client, trainings[1], store)
    assert not list(store.keys("checkpoints/"))
    found = runs_of(plugin)
    assert found[plugin.root].data.metrics == {"dice": 0.7, "fold-1/dice": 0.7, "fold-2/dice": 0.7}
    assert found[plugin.root].data.tags["decision"] == "promoted"
    assert found[last].data.tags["decision"] == "promoted"
    assert "decision" not in found[loop].data.tags
    assert found[plugin.root].info.status == "RUNNING"  # the API server ends it


def test_without_injection_the_training_is_nested_in_the_pipeline_runs_run(plugin, tmp_path):
    with attempt(plugin) as client:
        training = open_training(plugin)
        assert open_training(plugin) == training
        assert parent_of(client.get_run(training)) == plugin.root
        assert client.get_run(training).info.experiment_id == plugin.experiment
        with pytest.raises(KeyError), recording(training):
            raise KeyError
    plugin.end_run("FAILED")
    plugin.retry_run()
    with attempt(plugin) as client, recording(training):
        assert open_training(plugin) == training
        log_metrics(client, training, {"dice": 0.8})
        log_headline(client, training, ["dice"])
        end_pipeline_run(client, training, open_store(str(tmp_path)))
    plugin.end_run("FINISHED")
    found = runs_of(plugin)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert set(found) == {plugin.root, training}
    assert found[plugin.root].data.metrics == {"dice": 0.8}


def test_after_kfps_retry_a_training_is_the_same_in_a_new_task(plugin):
    digests = []
    for _ in range(2):  # the driver of a task that failed for good may run again
        task = plugin.start_task("train")
        with attempt(plugin, task) as client:
            digests.append(training_digest(client.get_run(open_training(plugin))))
        plugin.end_attempt(task, "FAILED")
        plugin.end_run("FAILED")
        plugin.retry_run()
    assert digests[0] == digests[1] != ""


def test_a_second_training_of_a_run_that_is_taken_is_nested_in_it(plugin):
    task = plugin.start_task("compare")
    with attempt(plugin, task) as client:
        first, second = (open_training(plugin, label) for label in ("a", "b"))
        assert first == task != second
        assert parent_of(client.get_run(second)) == task
        assert pipeline_run_of(client, second) == plugin.root
        assert [open_training(plugin, label) for label in ("a", "b")] == [first, second]


def test_a_server_of_ones_own_goes_before_the_plugins(plugin, local_mlflow):
    task = plugin.start_task("train")
    variables = {**plugin.variables(task), "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    with mock.patch.dict(os.environ, variables):
        adopt_settings()
        training = new_run()
        assert parent_of(connect().get_run(training)) not in (task, plugin.root)
    assert set(runs_of(plugin)) == {task, plugin.root}


@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_that_the_server_has_not_is_reported(plugin, deleted):
    with attempt(plugin) as client:
        unknown = "0123"
        if deleted:
            unknown = plugin.start_task("train")
            client.delete_run(unknown)
        os.environ["MLFLOW_RUN_ID"] = unknown
        with pytest.raises(UserError, match=f"MLFLOW_RUN_ID names run {unknown}.*has no such run"):
            open_training(plugin)


@pytest.fixture
def files(tmp_path):
    """Artifacts by their names, each a file in the test's folder."""
    return lambda *names: {name: dsl.Artifact(uri=str(tmp_path / name)) for name in names}


@pytest.mark.slow
def test_a_pipeline_run_by_its_real_steps(plugin, files, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINSEG_CACHE", str(tmp_path / "cache"))
    store = str(tmp_path / "store")

    def run(component, name, status="FINISHED", **arguments):
        task = tasks.get(name) or plugin.start_task(name)
        tasks[name] = task
        given = {key: value for key, value in arguments.items() if isinstance(value, str)}
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, plugin.variables(task)))
            if status == "FAILED":
                stack.enter_context(pytest.raises((SystemExit, OSError)))
            result = component.python_func(**arguments)
        metrics = arguments["metrics"].metadata if name == "evaluate" else {}
        plugin.end_attempt(task, status, given, metrics)
        return None if status == "FAILED" else result

    tasks: dict[str, str] = {}
    manifest = files("manifest", "ingest_account")
    dataset_id = run(
        ingest, "ingest", source="synthetic:8,seed=3", store=store, settings="", **manifest
    )
    data = {"store": store, "dataset_id": dataset_id, "manifest": manifest["manifest"]}
    data["split_id"] = run(split, "split", **data, settings="", **files("split"))
    data |= files("split", "model")
    training = {"pipeline_run": plugin.kfp_run, "settings": RECIPE, **files("history")}
    page = files("profile_report")
    run(train, "train", "FAILED", **data, **training, **page)  # there is no page yet
    (tmp_path / "profile_report").write_text("<html></html>")
    run_id = run(train, "train", **data, **training, **page)
    assert run_id == tasks["train"]

    scored, result = files("per_patient"), {"mlflow_run_id": run_id, "settings": "device: cpu"}
    metrics = {"metrics": dsl.Metrics(uri=str(tmp_path / "metrics"))}
    outputs = {**files("report"), **scored, **metrics, **files("history")}
    run(evaluate, "evaluate", **data, **result, **outputs)
    outputs = {**files("decision", "report"), **scored, **metrics}
    settings = json.dumps({"model_name": plugin.kfp_run, "device": "cpu"})
    run(register, "register", **data, mlflow_run_id=run_id, settings=settings, **outputs)
    plugin.end_run("FINISHED")

    found = runs_of(plugin)
    assert set(found) == {plugin.root, *tasks.values()}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    dice = found[run_id].data.metrics["patient_dice_mean"]
    assert found[plugin.root].data.metrics["patient_dice_mean"] == dice
    assert found[tasks["evaluate"]].data.metrics["patient_dice_mean"] == dice
    shown = [run_id, tasks["register"], plugin.root]
    assert len({found[shown_in].data.tags["decision"] for shown_in in shown}) == 1
    for name in ("evaluate", "register"):
        assert found[tasks[name]].data.tags["training_run_id"] == run_id
    assert found[plugin.root].inputs.dataset_inputs
    assert not list(open_store(store).keys("checkpoints/"))
