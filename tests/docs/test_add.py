"""The pages about pipelines and steps, followed to the letter in a copy of the packages."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pipelines.conftest import clean_environment, command

ROOT = Path(__file__).parents[2]
HOW_TO = ROOT / "docs" / "how-to"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def blocks(page):
    return [match.groups() for match in BLOCK.finditer((HOW_TO / page).read_text())]


def write_files(page, tree):
    for language, title, text in blocks(page):
        if language == "python" and not title.startswith("STEPS"):
            (tree / title).parent.mkdir(exist_ok=True)
            (tree / title).write_text(text)


def follow(page, tree, verbs=("run", "compile")):
    """Runs the command lines of a page that have one of the verbs; returns their outputs."""
    lines = [line for kind, _, text in blocks(page) if kind == "sh" for line in text.splitlines()]
    done = [
        subprocess.run(
            [*command(), *line.split()[1:]],
            cwd=tree,
            env=clean_environment(PYTHONPATH=str(tree), COLUMNS="200"),
            capture_output=True,
            text=True,
        )
        for line in lines
        if line.split()[1] in verbs
    ]
    assert [each.stderr for each in done if each.returncode] == []
    return [each.stdout for each in done]


@pytest.fixture
def tree(tmp_path):
    for name in ("components", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def test_a_pipeline_is_one_module(tree):
    write_files("add-a-pipeline.md", tree)
    (compiled,) = follow("add-a-pipeline.md", tree, verbs=("compile",))
    assert "compiled/inspection.yaml" in compiled.splitlines()


@pytest.mark.slow
def test_the_pipeline_is_in_the_help_and_runs(tree):
    write_files("add-a-pipeline.md", tree)
    shown, _ = follow("add-a-pipeline.md", tree, verbs=("run",))
    assert re.search("^ +inspection +Ingests a source and profiles it, without", shown, re.M)
    result = json.loads((tree / "out" / "result.json").read_text())
    assert result["dataset_id"]
    assert Path(result["reports"]["profile"]).is_file()


def test_a_step_is_one_folder_and_one_line(tree):
    page = "add-a-step.md"
    write_files(page, tree)
    (line,) = [text for _, title, text in blocks(page) if (title or "").startswith("STEPS")]
    presets = tree / "pipelines" / "settings" / "presets.py"
    head, steps, tail = presets.read_text().partition("STEPS: Mapping[str, type[Config]] = {\n")
    imported = "from components.census.settings import CensusSettings\n"
    presets.write_text(f"{head}{imported}{steps}{line}{tail}")
    follow(page, tree)
    result = json.loads((tree / "counted" / "result.json").read_text())
    assert result["Output"] == 4  # the sites of synthetic patients
