"""What `pip install .` without extras gives: a command that says what is missing."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def with_dependencies(requirements):
    """Names of distributions, and of all that they need."""
    names, waiting = set(), [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in names:
            names.add(requirement.name)
            waiting += map(Requirement, metadata.requires(requirement.name) or [])
    return names


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Runs the command where only the plain dependencies can be imported."""
    return installed(tmp_path_factory.mktemp("site"), PROJECT["dependencies"])


@pytest.fixture(scope="module")
def with_pipelines(tmp_path_factory):
    """The same in an installation like that of images/cli."""
    extra = PROJECT["optional-dependencies"]["pipelines"]
    return installed(tmp_path_factory.mktemp("cli"), [*PROJECT["dependencies"], *extra])


def installed(site, requirements):
    for name in [*with_dependencies(requirements), "brainseg"]:
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files if file.parts[0] != ".."}:
            link = site / top
            if not link.exists() and top != "__pycache__":
                link.symlink_to(distribution.locate_file(top))

    def run(*arguments, cwd):
        return subprocess.run(
            [sys.executable, "-S", "-c", "from pipelines.cli import main; main()", *arguments],
            cwd=cwd,
            env={"PYTHONPATH": f"{site}:{ROOT}", "PATH": "", "HOME": str(cwd)},
            capture_output=True,
            text=True,
        )

    return run


def test_nothing_large_is_in_a_plain_installation():
    names = with_dependencies(PROJECT["dependencies"])
    assert not names & {"torch", "mlflow", "kfp", "lightning", "monai", "scipy", "kagglehub"}


def test_help_works(plain, tmp_path):
    done = plain("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ingest" in done.stdout


def test_commands_of_the_data_work(plain, tmp_path):
    for command in (
        ["ingest", "--source", "synthetic:2", "--store", "s"],
        ["datasets", "--store", "s"],
    ):
        done = plain(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "2 volumes" in done.stdout


@pytest.mark.parametrize(
    ("command", "extras"),
    [
        (["run", "--source", "synthetic:2"], "trainer,pipelines"),
        (["predict", "--source", "synthetic:2", "--output", "out"], "trainer"),
        (["rollback"], "trainer"),
        (["compile"], "pipelines"),
        (["submit", "--source", "synthetic:2", "--store", "s3://mri/x"], "pipelines"),
        (["schedule", "list"], "pipelines"),
        (["ingest", "--source", "kaggle:a/b"], "kaggle"),
    ],
)
def test_other_commands_say_which_extra_they_lack(plain, tmp_path, command, extras):
    done = plain(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"pip install 'brainseg[{extras}]'" in line
    assert list(tmp_path.iterdir()) == []


def test_runs_are_submitted_without_what_trains(with_pipelines, tmp_path):
    order = ["--source", "synthetic:2", "--store", "s3://mri/x", "--registry", "r.example"]
    done = with_pipelines("submit", *order, "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "brainseg-training-" in done.stdout
    done = with_pipelines("schedule", "list", "--endpoint", "http://127.0.0.1:9", cwd=tmp_path)
    assert (done.returncode, "does not answer" in done.stderr) == (1, True)


def test_doctor_says_which_extras_are_missing(plain, tmp_path):
    done = plain("doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "(extra trainer, for run, predict, serve, find-lr, gc and rollback)" in done.stdout
    assert "kfp" in done.stdout
    assert "pip install 'brainseg[trainer,pipelines,dicom,mlflow-s3,kaggle]'" in done.stdout


def test_the_wheel_has_presets_and_templates(tmp_path):
    for top in ("components", "pipelines"):
        shutil.copytree(ROOT / top, tmp_path / top)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for top in ("components", "pipelines")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".yaml", ".jinja")
    }
    assert "pipelines/presets/quick.yaml" in wanted
    assert wanted <= names
