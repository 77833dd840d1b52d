"""The fold comparison graph: its YAML, and a whole run in real processes."""

import csv
import json

import pytest
from google.protobuf.json_format import MessageToDict

from pipelines.fold_comparison import fold_comparison

_PRESET = """
profile: {montage_volumes: 0, min_patients: 6}
fold: {folds: 2}
train:
  network: {encoder_weights: none, encoder_depth: 3, image_size: 32, decoder_channels: [16, 8, 8]}
  sampling: {batch_size: 8}
  schedule: {epochs: 1}
  compute: {threads: 1}
compare: {overlay_volumes: 0}
recipes:
  light: {network: {encoder: mobilenet_v2}}
  heavy: {network: {encoder: resnet18}}
"""


def test_every_recipe_meets_every_fold_and_nothing_is_registered():
    spec = MessageToDict(fold_comparison.pipeline_spec)
    steps = {name.removeprefix("comp-") for name in spec["components"]}
    assert {"fold", "split", "train", "compare-folds"} <= steps
    assert not {"register", "evaluate"} & steps
    tasks = spec["root"]["dag"]["tasks"]
    recipes = tasks["fold"]["inputs"]["parameters"]["recipes"]
    assert recipes == {"componentInputParameter": "recipes"}
    pairs = tasks["brainseg-recipe-folds"]["inputs"]["parameters"]["pairs"]
    assert pairs["taskOutputParameter"]["producerTask"] == "fold"


@pytest.mark.slow
def test_a_run_names_the_best_recipe(tmp_path, brainseg):
    (tmp_path / "two.yaml").write_text(_PRESET)
    run = brainseg(
        *("run", "--pipeline", "fold-comparison", "--source", "synthetic:8,seed=3"),
        *("--preset", "two.yaml", "--output", "out", "--json"),
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    with open(result["reports"]["recipes"], newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["recipe"] for row in rows} == {"light", "heavy"}
    assert result["best_recipe"] == rows[0]["recipe"]
