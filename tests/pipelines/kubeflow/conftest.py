import os
from dataclasses import replace

import kubernetes
import pytest

from pipelines.kubeflow.client import connect
from pipelines.kubeflow.order import Order, prepare
from pipelines.kubeflow.schedule import Schedule
from pipelines.placement.images import Images
from tests.kfp_api.backend import Backend
from tests.kfp_api.server import serve

IMAGES = Images(registry="registry.example/team")
ORDER = Order(source="synthetic:24", store="s3://mri/brainseg", preset="demo")


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch, tmp_path):
    for name in [one for one in os.environ if one.startswith("KF_PIPELINES")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    config = kubernetes.config.kube_config
    monkeypatch.setattr(config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "no-kubeconfig"))


@pytest.fixture
def server():
    """An installation of Kubeflow Pipelines for one user, without anything in it."""
    with serve(Backend()) as served:
        yield served


@pytest.fixture
def backend(server):
    return server.backend


@pytest.fixture
def kubeflow(server):
    return connect(server.url)


@pytest.fixture(scope="session")
def prepared():
    """The training of made-up patients, compiled."""
    return prepare(ORDER, IMAGES, run_name="demo")


@pytest.fixture(scope="session")
def changed(prepared):
    """The same with another pipeline text."""
    text = prepared.package.text.replace("Trains on a source", "Fits a source")
    assert text != prepared.package.text
    return replace(prepared, package=replace(prepared.package, text=text))


@pytest.fixture(scope="session")
def renamed(prepared):
    """The same under the name of another pipeline."""
    return replace(prepared, package=replace(prepared.package, name="brainseg-other"))


def nightly(**changes):
    """A schedule of that order."""
    values = {"name": "nightly", "cron": "0 3 * * *", **ORDER.model_dump(), **changes}
    return Schedule(**values)
