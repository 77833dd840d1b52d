import functools
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

MANIFESTS = Path(__file__).parents[2] / "manifests"
BUILDS = ["base", "overlays/test", "overlays/kind", "overlays/aws", "overlays/gpu", "schedules"]


@pytest.fixture(params=BUILDS)
def built(request):
    """The objects that kustomize makes of a folder; skips without kubectl."""
    return Objects(build(request.param))


@pytest.fixture
def base():
    """The objects of the base."""
    return Objects(build("base"))


@pytest.fixture
def overlay():
    """Gives the objects of a named overlay."""
    return lambda name: Objects(build(f"overlays/{name}"))


@functools.cache
def build(folder):
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl, which has kustomize built in")
    done = subprocess.run(
        ["kubectl", "kustomize", str(MANIFESTS / folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{folder}: {done.stderr}"
    return list(yaml.safe_load_all(done.stdout))


class Objects(list):
    """Kubernetes objects, by what the tests ask of them."""

    def of(self, *kinds):
        return [each for each in self if each["kind"] in kinds]

    def named(self, kind, name):
        (found,) = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        return found

    def names(self, kind):
        return {each["metadata"]["name"] for each in self.of(kind)}

    def pods(self):
        """The pod templates, by the name of what makes them."""
        found = {}
        for each in self.of("Deployment", "StatefulSet"):
            found[each["metadata"]["name"]] = each["spec"]["template"]
        for each in self.of("CronJob"):
            found[each["metadata"]["name"]] = each["spec"]["jobTemplate"]["spec"]["template"]
        return found

    def containers(self):
        """All containers, each under the name of its pod and its own."""
        for name, pod in self.pods().items():
            spec = pod["spec"]
            for container in spec.get("initContainers", []) + spec["containers"]:
                yield f"{name}/{container['name']}", container
