import os

import kubernetes
import pytest
import yaml

from components.shared.cluster import connect
from pipelines.doctor.cluster.target import Target
from pipelines.placement.images import Images
from pipelines.placement.profiles import load_profile
from tests.pipelines.doctor.cluster.api_server import ApiServer, serving


@pytest.fixture
def server():
    """A cluster on which a run would go well; tests break what they are about."""
    with serving(ApiServer()) as running:
        yield running


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path, monkeypatch, request):
    """The kubeconfig of the server, if the test has one; none of this machine."""
    for name in [one for one in os.environ if one.startswith(("KF_PIPELINES", "KUBERNETES_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    location = "KUBE_CONFIG_DEFAULT_LOCATION"  # read when it is imported
    monkeypatch.setattr(kubernetes.config.kube_config, location, str(path))
    if "server" in request.fixturenames:
        write_kubeconfig(path, request.getfixturevalue("server").url)
    return path


def write_kubeconfig(path, url, context="test", **user):
    named = {"name": "test"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{**named, "cluster": {"server": url}}],
        "users": [{**named, "user": user or {"token": "abc"}}],
        "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
        "current-context": context,
    }
    path.write_text(yaml.safe_dump(content))


@pytest.fixture
def cluster(server):
    return connect("brainseg", 20)


@pytest.fixture
def target():
    return target_of("test")


def target_of(profile, **changes):
    values = {"store": "s3://mri/brainseg", **changes}
    return Target(load_profile(profile), Images(registry="registry.example/team"), **values)


@pytest.fixture
def profile_of(tmp_path):
    """A target whose profile is `test` with changes to single sections."""

    def make(**sections):
        path = tmp_path / "profile.yaml"
        path.write_text(yaml.safe_dump({"extends": "test", **sections}))
        return target_of(str(path))

    return make
