"""The pages about metrics and networks are followed literally."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def blocks(page, language):
    text = (PROJECT / "docs" / "how-to" / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def insert(path, code, before):
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, code + before))


USE_METRIC = """
from dataclasses import dataclass

import numpy as np

from components.shared.dataset.volumes import Volume
from components.shared.scoring.metrics import aggregate
from components.shared.scoring.scores import score_volume
from components.shared.scoring.table import read_patient_scores, write_patient_scores
from docs.tools.reference import metrics
from pathlib import Path


@dataclass
class Entry:
    volume = patient = "a"
    site = "CS"


mask = np.zeros((3, 4, 4), np.uint8)
mask[:2] = 1
found = np.zeros((3, 4, 4), np.float32)
found[0, 0, 0] = 1
score = score_volume(Entry(), Volume(np.full((3, 4, 4, 3), 9, np.uint8), mask), found, found > 0)
values = aggregate([score])
assert values["missed_slices_mean"] == 1, values
assert values["missed_slices_mean_empty_baseline"] == 2, values
write_patient_scores({"tumour": [score]}, Path("scores.csv"))
assert "relative_volume_difference,missed_slices," in Path("scores.csv").read_text()
assert read_patient_scores(Path("scores.csv"))[0].missed_slices == 1
assert "missed_slices_mean" in metrics()
"""


def test_a_metric_is_added_as_the_page_says(tmp_path):
    for name in ("components", "docs", "pipelines"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    scoring = tmp_path / "components" / "shared" / "scoring"
    figure, table = blocks("add-a-metric.md", "python")
    (metric,) = re.findall(r"^    Metric\(\n.*?^    \),\n", table, re.MULTILINE | re.DOTALL)
    insert(scoring / "scores.py", figure, before="\n\nPATIENT_FIGURES: ")
    insert(scoring / "metrics.py", metric, before=')\n"""Every metric, in')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", USE_METRIC]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=1200)


def test_a_network_is_added_as_the_page_says(tmp_path, monkeypatch):
    from components.shared.model.network import build_segmenter
    from components.train.recipe import Recipe
    from pipelines.settings.presets import load_preset

    (module,), (shell,) = (blocks("add-a-network.md", kind) for kind in ("python", "bash"))
    (tmp_path / "my_networks.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in re.findall(r"^export (BRAINSEG_\w+)=(\S+)$", shell, re.MULTILINE):
        monkeypatch.setenv(name, value)
    changes = re.findall(r"--set (\S+)", shell)
    preset = load_preset("quick", changes)
    segmenter = build_segmenter(Recipe.model_validate(preset["train"]).network)
    assert segmenter.network[0].in_channels == 9
    sys.modules.pop("my_networks")


@pytest.mark.parametrize("page", ["add-a-metric.md", "add-a-network.md"])
def test_every_file_that_a_page_names_exists(page):
    text = (PROJECT / "docs" / "how-to" / page).read_text("utf-8")
    for path in re.findall(r"`(components/[\w/.]+)`", text):
        assert (PROJECT / path).is_file()
