"""What every Dockerfile must hold, and that images have what their steps import."""

import functools
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement

from components.shared.step import DATA_IMAGE, TRAINER_IMAGE
from pipelines.placement.compilation import COMPONENTS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
IMAGES = {
    "data": DATA_IMAGE,
    "trainer": TRAINER_IMAGE,
    "mlflow": f"brainseg-mlflow:{PROJECT['project']['version']}",
    "cli": f"brainseg-cli-python:{PROJECT['project']['version']}",
}


def stages(path):
    """Instructions as (name, rest of the line), a list for each stage; the first is before FROM."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found = [[]]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            if name == "FROM":
                found.append([])
            found[-1].append((name, rest.strip()))
    return found


def with_dependencies(*lines):
    """Names of distributions with all that they need, extras too, as they are installed here."""
    names, waiting = set(), [Requirement(line) for line in lines]
    while waiting:
        requirement = waiting.pop()
        extras = ["", *requirement.extras]
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        key = (_normal(requirement.name), tuple(extras))
        if key in names:
            continue
        names.add(key)
        for line in metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            if any(needed.marker is None or needed.marker.evaluate({"extra": e}) for e in extras):
                needed.marker = None
                waiting.append(needed)
    return {name for name, _ in names}


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def dockerfile(request):
    return request.param


def test_there_is_one_dockerfile_for_every_image():
    assert {path.parent.name for path in DOCKERFILES} == set(IMAGES)
    used = {
        part["container"]["image"]
        for step in COMPONENTS.values()
        for part in step.pipeline_spec.deployment_spec["executors"].values()
    }
    assert used == {DATA_IMAGE, TRAINER_IMAGE}


def test_tags_are_the_projects_version():
    for image in (DATA_IMAGE, TRAINER_IMAGE):
        assert image.partition(":")[2] == PROJECT["project"]["version"]


def test_make_builds_the_images_that_the_steps_name():
    made = subprocess.run(
        ["make", "--dry-run", "images", "CONTAINER=podman", "BUILD_FLAGS=-q", "SOURCE=x/y"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    found = re.findall(
        r"^podman build -q --file images/(\S+)/Dockerfile --tag (\S+)\s+"
        r"--label org.opencontainers.image.version=(\S+) "
        r"--label org.opencontainers.image.revision=[0-9a-f]{40}\s+"
        r"--label org.opencontainers.image.source=x/y \.$",
        made,
        re.MULTILINE,
    )
    version = PROJECT["project"]["version"]
    assert sorted(found) == sorted((folder, tag, version) for folder, tag in IMAGES.items())


def test_the_base_is_an_argument_without_a_registry(dockerfile):
    before, *built = stages(dockerfile)
    assert before == [("ARG", "BASE=python:3.11-slim")]
    names = []
    for (_, stage), *_ in built:
        origin, _, name = stage.partition(" AS ")
        assert origin in ("${BASE}", *names)
        names.append(name)
    assert built[-1][0] == ("FROM", "${BASE}")


def test_the_user_is_a_number_other_than_root(dockerfile):
    last = stages(dockerfile)[-1]
    users = [rest for name, rest in last if name == "USER"]
    assert users == ["1000:1000"]
    after = [name for name, _ in last[last.index(("USER", "1000:1000")) :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_dependencies_are_a_layer_that_new_code_leaves(dockerfile):
    _, requirements, builder, dependencies, *code, last = stages(dockerfile)
    assert [name for name, _ in requirements] == ["FROM", "COPY", "RUN"]
    assert requirements[1] == ("COPY", "pyproject.toml /")  # only the list of it goes on
    assert _copied(builder) == ["constraints.txt ./"]
    assert _copied(dependencies) == ["--from=requirements /requirements.txt ./"]
    taken = ["--from=dependencies /opt/brainseg /opt/brainseg"]
    if dockerfile.parent.name == "mlflow":
        assert not code
    else:
        (code,) = code
        assert _copied(code) == [". ./"]
        assert code[-1] == ("RUN", "pip install --no-deps --no-build-isolation --prefix /code .")
        taken.append("--from=code /code /opt/brainseg")
    assert _copied(last) == taken


def _copied(stage):
    return [rest for name, rest in stage if name == "COPY"]


def test_versions_are_pinned_and_pip_is_gone(dockerfile):
    _, _, builder, dependencies, *code, last = stages(dockerfile)
    (given,) = [rest for name, rest in builder if name == "ENV" and "PIP_CONSTRAINT" in rest]
    assert "PIP_CONSTRAINT=/build/constraints.txt" in given
    assert "PIP_NO_CACHE_DIR=1" in given
    assert {stage[0][1].split()[0] for stage in (dependencies, *code)} == {"builder"}
    assert re.search(r"pip uninstall --yes .*\bpip$", dependencies[-1][1])
    assert last[1][0] == "RUN"
    assert last[1][1].startswith("python3 -m pip uninstall --yes pip ")


def test_nothing_fetches_or_installs_beside_pip(dockerfile):
    text = " ".join(rest for stage in stages(dockerfile) for name, rest in stage if name == "RUN")
    assert not re.search(r"\b(apt|apt-get|curl|wget|git|uv|conda)\b", text)
    assert "ADD" not in {name for stage in stages(dockerfile) for name, _ in stage}
    assert "latest" not in dockerfile.read_text()


def test_nothing_secret_is_asked_for_or_set(dockerfile):
    for name, rest in (line for stage in stages(dockerfile) for line in stage):
        if name in ("ARG", "ENV"):
            assert not re.search(r"(?i)passw|secret|token|credential|_key\b|://", rest)


def test_folders_that_can_be_written_are_named(dockerfile):
    (given,) = [rest for name, rest in stages(dockerfile)[-1] if name == "ENV"]
    variables = dict(item.split("=", 1) for item in given.split())
    assert variables["HOME"] == "/tmp"
    assert variables["PYTHONUNBUFFERED"] == "1"
    if dockerfile.parent.name in ("data", "trainer"):
        assert variables["BRAINSEG_CACHE"] == "/cache"


def test_labels_tell_what_it_is(dockerfile):
    (given,) = [rest for name, rest in stages(dockerfile)[-1] if name == "LABEL"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="([^"]*)"', given))
    assert labels.pop("description")
    assert labels == {
        "title": IMAGES[dockerfile.parent.name].partition(":")[0],
        "base.name": "${BASE}",
        "licenses": "Apache-2.0",
    }


def test_the_context_holds_what_is_named_and_nothing_else():
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    assert set(lines[1:]) == {
        "!components",
        "!pipelines",
        "!pyproject.toml",
        "!constraints.txt",
        "!README.md",
        "!LICENSE",
        "**/__pycache__",
    }


def _requirements(folder):
    """What the Dockerfile's own line reads from pyproject.toml."""
    (command,) = [
        rest for name, rest in stages(ROOT / "images" / folder / "Dockerfile")[1] if name == "RUN"
    ]
    code = re.fullmatch(r'python3 -c "(.*)"\s*> /requirements.txt', command)[1]
    return subprocess.run(
        ["python3", "-c", code.replace("/pyproject.toml", str(ROOT / "pyproject.toml"))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def test_an_image_installs_what_the_project_says():
    extras = PROJECT["project"]["optional-dependencies"]
    plain = PROJECT["project"]["dependencies"]
    client, bucket = extras["mlflow-client"], extras["mlflow-s3"]
    imports = [*extras["kaggle"], *extras["dicom"]]
    assert _requirements("data") == [*plain, *imports, *client]
    assert _requirements("trainer") == [*plain, *extras["trainer"], *imports, *bucket]
    assert _requirements("cli") == [*plain, *extras["pipelines"], *extras["kaggle"]]
    assert _requirements("mlflow") == PROJECT["dependency-groups"]["mlflow"]


def test_every_dependency_of_an_image_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_normal(line.partition("==")[0]) for line in lines if not line.startswith("#")}
    for folder in ("data", "trainer", "cli"):
        names = with_dependencies(*_requirements(folder))
        assert (
            not {n for n in names if not n.startswith(("nvidia-", "cuda-"))} - pinned - {"triton"}
        )
    assert {_normal(Requirement(line).name) for line in _requirements("mlflow")} <= pinned


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("components", "pipelines", include_external_packages=True)


@pytest.mark.parametrize("step", COMPONENTS)
def test_what_a_step_imports_is_in_its_image(imports, step):
    (executor,) = COMPONENTS[step].pipeline_spec.deployment_spec["executors"].values()
    folder = {image: name for name, image in IMAGES.items()}[executor["container"]["image"]]
    assert _missing(imports, step, folder) == set()


def test_a_step_in_the_wrong_image_lacks_something(imports):
    assert _missing(imports, "train", "data") >= {"torch", "timm", "lightning"}


def _missing(imports, step, folder):
    """Packages that a step's component imports, itself or through others, and the image has not."""
    top = COMPONENTS[step].python_func.__module__  # fold stands beside split
    modules = imports.find_upstream_modules(top) - {"kfp"}  # installed without its dependencies
    if folder == "data":
        modules -= {"sqlalchemy"}  # for a database as MLflow, which ingest does not try
    owners, installed = _owners(), _installed(folder)
    return {
        module
        for module in modules & set(owners)  # not of the project, nor of the standard library
        if not installed & {_normal(name) for name in owners[module]}
    }


@functools.cache
def _owners():
    return metadata.packages_distributions()


@functools.cache
def _installed(folder):
    return with_dependencies(*_requirements(folder))
