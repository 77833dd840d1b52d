import datetime
import json
import os
import re
import signal
import threading
import time

import pytest
from kfp import dsl

from components.notify.notification import notify_people
from components.shared.errors import OutageError, UserError
from components.shared.storage.outcome import read_outcome
from components.shared.storage.store import open_store
from components.train.component import train as train_step
from components.train.exit_codes import PREEMPTED_STATUS
from components.train.group import following
from components.train.group.cluster import GroupCluster
from components.train.group.following import Group
from components.train.group.objects import LEASE_S
from components.train.group.result import group_folder, store_result
from components.train.group.settings import GroupSettings
from tests.components.train.group.pods import FRAGMENT


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(following, "_POLL_S", 0.02)
    monkeypatch.setattr(following, "_RENEW_S", 0.0)


@pytest.fixture
def task(make_task):
    return make_task()


@pytest.fixture
def train(cluster, task):
    def train(**settings):
        store = open_store(task.store)
        group = Group(cluster, GroupSettings(pods=2, **settings), task, FRAGMENT)
        return group.train(store, group_folder(task.training))

    return train


@pytest.fixture
def run_step(cluster, task, tmp_path, monkeypatch):
    """Runs the body of the step, in a pod of this cluster."""
    monkeypatch.setattr(GroupCluster, "inside", lambda: cluster)
    monkeypatch.delenv("KFP_RUN_ID", raising=False)
    (tmp_path / "report").write_text("<html></html>")

    def artifact(kind, name):
        return kind(uri=str(tmp_path / name))

    def run_step(group="{pods: 2}"):
        training = task.training
        return train_step.python_func(
            store=task.store,
            dataset_id=training.dataset_id,
            split_id=training.split_id,
            manifest=artifact(dsl.Dataset, "manifest"),  # the pods read both from the store
            split=artifact(dsl.Artifact, "split"),
            profile_report=artifact(dsl.HTML, "report"),
            pipeline_run=training.pipeline_run,
            settings=json.dumps(training.recipe),
            group=group,
            pod=json.dumps(FRAGMENT),
            model=artifact(dsl.Model, "fetched"),
            history=artifact(dsl.Artifact, "fetched.json"),
            label=training.label,
        )

    return run_step


@pytest.fixture
def notified(task):
    """What people learn of the pipeline run: step and reason."""

    def notified():
        run = task.training.pipeline_run
        message = notify_people(task.store, run, "", run="nightly", webhook="", mlflow_url="")
        return message.step, message.reason

    return notified


@pytest.fixture
def leave(task, tmp_path):
    def leave():
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "MLmodel").write_text("{}")
        (tmp_path / "history").write_text("[]")
        store_result(
            open_store(task.store),
            group_folder(task.training),
            mlflow_run_id="run",
            model=tmp_path / "model",
            history=tmp_path / "history",
        )

    return leave


def now():
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


class Controller(threading.Thread):
    """Plays what a cluster does with a Job once it is there: acts, one after the other."""

    def __init__(self, api, task, *acts):
        super().__init__(daemon=True)
        self._api, self._task, self._acts = api, task, acts
        self.start()

    def run(self):
        while not (job := self._api.objects["jobs"].get(self._task.name)):
            time.sleep(0.01)
        for act in self._acts:
            act(self._api, job)
            time.sleep(0.2)


def start_pods(api, job, phase="Running", **status):
    job["status"] = {"startTime": now()}
    for number in range(2):
        name = f"{job['metadata']['name']}-{number}"
        labels = {
            "batch.kubernetes.io/job-name": job["metadata"]["name"],
            "batch.kubernetes.io/job-completion-index": str(number),
        }
        api.objects["pods"][name] = {
            "metadata": {"name": name, "labels": labels, "creationTimestamp": now()},
            "status": {"phase": phase, **status},
        }


def end(kind, **pod_status):
    def act(api, job):
        for pod in api.objects["pods"].values():
            if "status" in pod and pod_status:
                state = {"terminated": pod_status}
                pod["status"] = {
                    "phase": "Failed",
                    "containerStatuses": [{"name": "node", "state": state}],
                }
        job["status"] = {
            "startTime": now(),
            "conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"}],
        }

    return act


def assert_gone(api, task):
    assert task.name not in api.objects["jobs"]


def test_a_group_is_made_followed_and_removed(train, api, task, leave, capsys):
    def log(api, _):
        api.logs[f"{task.name}-0"] = (
            "2026-01-01T00:00:01.000000000Z train: epoch 1 of 2\n"
            "2026-01-01T00:00:02.000000000Z train: epoch 2 of 2\n"
        )

    seen = {}

    def look(api, job):
        seen.update(job=job, service=api.objects["services"][task.name])
        leave()

    Controller(api, task, start_pods, log, look, end("Complete"))
    assert train().mlflow_run_id == "run"
    assert seen["job"]["spec"]["completions"] == 2
    (owner,) = seen["job"]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Pod", "train-1")
    (owner,) = seen["service"]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", seen["job"]["metadata"]["uid"])
    assert_gone(api, task)
    log = capsys.readouterr().err
    assert log.count("train: epoch 1 of 2\n") == log.count("train: epoch 2 of 2\n") == 1


def test_the_deadline_is_put_off_while_the_step_follows(train, api, task, leave):
    deadlines = []

    def remember(api, job):
        first, now = job["spec"]["activeDeadlineSeconds"], datetime.datetime.now(datetime.UTC)
        started = now - datetime.timedelta(seconds=1000)
        job["status"]["startTime"] = started.isoformat().replace("+00:00", "Z")
        latest = time.monotonic() + 300
        while job["spec"]["activeDeadlineSeconds"] == first and time.monotonic() < latest:
            time.sleep(0.01)
        waited = datetime.datetime.now(datetime.UTC) - now
        deadlines.append((job["spec"]["activeDeadlineSeconds"], waited.total_seconds()))
        leave()

    Controller(api, task, start_pods, remember, end("Complete"))
    train()
    ((deadline, waited_s),) = deadlines
    assert 999 + LEASE_S <= deadline <= 1001 + LEASE_S + waited_s


def test_a_second_attempt_follows_the_pods_of_the_first(train, api, task, leave, cluster):
    first = Group(cluster, GroupSettings(pods=2), task, FRAGMENT)
    first._start()
    uid = api.objects["jobs"][task.name]["metadata"]["uid"]
    api.objects["pods"]["train-1"]["metadata"]["uid"] = "of the second attempt"
    owners = []

    def look(_, job):
        owners.extend(each["uid"] for each in job["metadata"]["ownerReferences"])
        leave()

    Controller(api, task, start_pods, look, end("Complete"))
    train()
    assert owners == ["0b1c", "of the second attempt"]
    assert [name for verb, kind, name in api.requests if (verb, kind) == ("create", "jobs")] == (
        [task.name, task.name]  # the second is refused
    )
    assert uid
    assert_gone(api, task)


def test_a_group_that_has_failed_is_recreated(train, api, task, leave, cluster):
    Group(cluster, GroupSettings(pods=2), task, FRAGMENT)._start()
    old = api.objects["jobs"][task.name]
    end("Failed")(api, old)

    def finish():
        while api.objects["jobs"].get(task.name) in (None, old):
            time.sleep(0.01)
        job = api.objects["jobs"][task.name]
        start_pods(api, job)
        leave()
        end("Complete")(api, job)

    threading.Thread(target=finish, daemon=True).start()
    assert train().mlflow_run_id == "run"


def test_a_mistake_is_reported_in_the_pods_words(train, api, task):
    ended = end("Failed", exitCode=78, reason="Error", message="brainseg error: no such encoder")
    Controller(api, task, start_pods, ended)
    with pytest.raises(UserError, match=r"^no such encoder$"):
        train()
    assert_gone(api, task)


def test_pods_that_fail_otherwise_are_reported(train, api, task):
    Controller(api, task, start_pods, end("Failed", exitCode=137, reason="OOMKilled"))
    with pytest.raises(RuntimeError, match=r"R: m.*pod 0 ended with 137 \(OOMKilled\)"):
        train()
    assert_gone(api, task)


def test_a_step_that_is_terminated_deletes_its_group_first(train, api, task):
    before = signal.getsignal(signal.SIGTERM)
    Controller(api, task, start_pods, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        train()
    assert ended.value.code == PREEMPTED_STATUS
    assert signal.getsignal(signal.SIGTERM) is before
    assert_gone(api, task)


def test_an_api_that_is_away_for_a_while_costs_nothing(train, api, task, leave):
    def go_away(api, _):
        api.refusals["get", "jobs"] = (503, "etcd is away")

    def come_back(api, _):
        del api.refusals["get", "jobs"]
        leave()

    Controller(api, task, start_pods, go_away, come_back, end("Complete"))
    assert train().mlflow_run_id == "run"


def test_a_group_that_somebody_deletes_is_no_mistake(train, api, task):
    Controller(api, task, start_pods, lambda api, _: api.objects["jobs"].clear())
    with pytest.raises(OutageError, match="was deleted; run the step again"):
        train()


def test_a_refused_service_leaves_no_job(train, api, task):
    said = 'services "a" is forbidden: exceeded quota: brainseg'
    api.refusals["create", "services"] = (403, said)
    with pytest.raises(UserError, match="exceeded quota"):
        train()
    assert_gone(api, task)


NO_NODE = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}


def test_a_group_waits_for_its_pods_only_so_long(train, api, task, caplog):
    Controller(api, task, lambda api, job: start_pods(api, job, "Pending", conditions=[NO_NODE]))
    waiting = "0 of the group's 2 pods run: pod 0 waits for a node: 0/1"
    with pytest.raises(UserError, match=f"after 5 s {waiting}"):
        train(wait_s=5)  # time for a busy machine to start the pods
    assert caplog.text.count(waiting) == 1
    assert_gone(api, task)


def test_a_quota_that_stops_pods_is_reported(train, api, task):
    message = 'Error creating: pods "a-0" is forbidden: exceeded quota: brainseg'
    api.objects["events"]["a"] = {"metadata": {"name": "a"}, "message": message}
    with pytest.raises(UserError, match=re.escape(message)):
        train(wait_s=1)
    assert_gone(api, task)


def test_a_group_in_a_queue_waits_for_ever(train, api, task, leave, caplog):
    def suspend(_, job):
        job["spec"]["suspend"] = True
        time.sleep(1.2)
        job["spec"]["suspend"] = False
        leave()

    Controller(api, task, suspend, start_pods, end("Complete"))
    assert train(wait_s=1, queue="gpus").mlflow_run_id == "run"
    assert "the queue has not admitted the group" in caplog.text


def test_a_trainjob_and_its_runtime_go_too(train, api, task, cluster):
    made = set()

    def finish():
        while task.name not in api.objects["trainjobs"]:
            time.sleep(0.01)
        made.update(kind for kind, found in api.objects.items() if task.name in found)
        job = {"metadata": {"name": f"{task.name}-node-0"}, "spec": {}, "status": {}}
        end("Failed")(api, job)
        api.objects["jobs"][f"{task.name}-node-0"] = job

    threading.Thread(target=finish, daemon=True).start()
    with pytest.raises(RuntimeError, match="R: m"):
        train(backend="trainjob")
    assert made == {"trainjobs", "trainingruntimes"}  # the Service is JobSet's
    assert not api.objects["trainjobs"]
    assert not api.objects["trainingruntimes"]


def test_a_members_mistake_is_reported_with_the_step(run_step, api, task, notified):
    mistake = {"exitCode": 78, "reason": "Error", "message": "brainseg error: no encoder"}
    Controller(api, task, start_pods, end("Failed", **mistake))
    with pytest.raises(SystemExit):
        run_step()
    assert notified() == ("train fold-1", "no encoder")


@pytest.mark.parametrize(
    ("kind", "said", "advice"),
    [
        ("services", "forbidden: exceeded quota: brainseg", "free some of the quota"),
        ("jobs", "forbidden: brainseg-run cannot create jobs", "see manifests/base/access"),
    ],
)
def test_what_the_cluster_refuses_is_reported(run_step, api, notified, kind, said, advice):
    api.refusals["create", kind] = (403, said)
    with pytest.raises(SystemExit):
        run_step()
    step, reason = notified()
    assert step == "train fold-1"
    assert said in reason
    assert advice in reason


def test_wrong_settings_of_a_group_are_reported(run_step, notified):
    with pytest.raises(SystemExit):
        run_step("{pods: 0}")
    step, reason = notified()
    assert (step, "train.group.pods=0" in reason) == ("train fold-1", True)


def test_pods_that_crash_are_reported(run_step, api, task, notified):
    Controller(api, task, start_pods, end("Failed", exitCode=137, reason="OOMKilled"))
    with pytest.raises(RuntimeError):
        run_step()
    step, reason = notified()
    assert step == "train fold-1"
    assert reason.startswith("it crashed: RuntimeError: the pods failed (R: m)")
    assert "OOMKilled" in reason


def test_a_group_that_trains_at_last_takes_the_failure_of_an_attempt_before_away(
    run_step, api, task, leave
):
    store = open_store(task.store)
    api.refusals["create", "jobs"] = (403, "forbidden")
    with pytest.raises(SystemExit):
        run_step()
    assert read_outcome(store, task.training.pipeline_run).step == "train fold-1"
    del api.refusals["create", "jobs"]
    leave()
    assert run_step() == "run"
    assert read_outcome(store, task.training.pipeline_run) is None
