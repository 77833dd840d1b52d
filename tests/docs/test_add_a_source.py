"""The page on data sources, followed literally in a copy of the code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "how-to" / "add-a-source.md").read_text()


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return found


@pytest.fixture
def copy(tmp_path, write_volume):
    """The code with the module that the page shows, and two volumes."""
    for name in ("components", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=ignored)
    path = re.search(r"Write `(\S+)`", PAGE)[1]
    (tmp_path / path).write_text(block("python"))
    for number in (1, 2):
        write_volume(tmp_path / "kaggle_3m", f"TCGA_CS_000{number}_19990101")
    return tmp_path


def test_a_new_source_is_one_module(copy):
    program = f"{sys.executable} -c 'from pipelines.cli import main; main()'"
    commands = f'brainseg() {{ {program} "$@"; }}\n' + block("bash")
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2 volumes, 6 slices" in done.stdout
    assert "tar:FILE" in done.stdout
    assert len(list((copy / "store" / "volumes").rglob("*.safetensors"))) == 2
    code = (
        "from components.shared.reading.sources.opening import require_shared_source\n"
        "require_shared_source('tar:lgg.tar')"
    )
    refused = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env=environment, capture_output=True, text=True
    )
    forms = "give dataset:ID, kaggle:owner/dataset, s3://bucket/prefix or synthetic"
    assert forms in refused.stderr
