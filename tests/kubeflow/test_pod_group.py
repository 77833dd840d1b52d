"""A training run in two pods, started by a task of Kubeflow."""

import pytest
import yaml

from tests.waiting import until

pytestmark = pytest.mark.kubeflow

GROUP = "app.kubernetes.io/component=pod-group"


@pytest.fixture(scope="module")
def grouped(known, tmp_path_factory):
    """Options for a profile whose training is done by two pods."""
    path = tmp_path_factory.mktemp("profile") / "group.yaml"
    train = {"pod_group": {"pods": 2, "wait_s": 600}}
    path.write_text(yaml.safe_dump({"extends": known.profile, "train": train}))
    return "--profile", str(path)


def group(installation, kind="pods"):
    path = "/apis/batch/v1/namespaces/{}/jobs" if kind == "jobs" else kind
    return installation.cluster.get(
        path.format(installation.cluster.namespace), labelSelector=GROUP
    )["items"]


def until_gone(installation):
    for kind in ("jobs", "services", "pods"):
        until(lambda: not group(installation, kind), f"end of the group's {kind}", 300)  # noqa: B023


def test_two_pods_train_a_run(installation, grouped, mlflow_runs):
    run = installation.submit(*grouped)
    installation.until_running(run, "train")
    until(lambda: len(group(installation)) == 2, "two pods of the group", 300)
    installation.succeeds(run)
    assert len(mlflow_runs(run, "brainseg.training")) == 1
    until_gone(installation)


def test_a_canceled_run_takes_its_group_along(installation, grouped):
    run = installation.submit(*grouped, "--set", "train.schedule.epochs=500")
    installation.until_running(run, "train")
    until(lambda: len(group(installation)) == 2, "two pods of the group", 300)
    installation.terminate(run)
    assert installation.wait(run) in ("CANCELED", "FAILED")
    until_gone(installation)
