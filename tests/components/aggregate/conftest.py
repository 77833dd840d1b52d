"""Two folds with real models, whose scores are in a local MLflow."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.aggregate.folds import Fold, FoldFiles
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import Split, split_key
from components.shared.model.segmenter import load_segmenter
from components.shared.scoring.predicted import scored
from components.shared.scoring.table import write_patient_scores
from components.shared.storage.store import open_store
from components.shared.tracking.identity import CHECKPOINTS
from components.shared.tracking.runs import log_metrics
from components.shared.tracking.server import connect
from components.split.assign import assign_folds
from components.split.settings import FoldSettings
from tests.components.conftest import new_run

THRESHOLDS = (0.5, 0.4)


class World:
    """A data set of ten patients in two folds, each with a model that was trained so to say."""

    def __init__(self, folder, publish, make_blob, threshold_model):
        self.folder, self.cache = folder, folder / "cache"
        self.store = open_store(str(folder / "store"))
        self.manifest = publish(self.store, [make_blob(seed) for seed in range(10)])
        (folder / "manifest").write_bytes(self.manifest.to_json())
        splits = assign_folds(self.manifest, FoldSettings(folds=2))
        self.files = [
            self._train(number, split, threshold_model(140 + 10 * number))
            for number, split in enumerate(splits, start=1)
        ]

    def _train(self, number, split, model):
        self.store.write(split_key(split.split_id), split.to_json())
        run_id = new_run(pipeline_run="cv", label=f"fold-{number}", split_id=split.split_id)
        digest = connect().get_run(run_id).data.tags["brainseg.training"]
        self.store.write(f"{CHECKPOINTS}{digest}/state", b"state")
        threshold = THRESHOLDS[number - 1]
        dataset = SplitDataset(self.store, self.cache, self.manifest, split)
        predicted = scored(
            load_segmenter(model, "cpu"), dataset, dataset.entries("test"), threshold
        )
        scores = [one.score for one in predicted]
        log_metrics(connect(), run_id, {"threshold": threshold})
        path = self.folder / f"per_patient-{number}"
        write_patient_scores({"tumour": scores}, path)
        return FoldFiles(run_id, model=model, per_patient=path)


@pytest.fixture
def world(tmp_path, no_mlflow, monkeypatch, make_mlflow, publish, make_blob, threshold_model):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", make_mlflow(tmp_path))
    return World(tmp_path, publish, make_blob, threshold_model)


@pytest.fixture
def fold(make_patient_score):
    def fold(number, *dice):
        names = [f"TCGA_CS_{number}{place}" for place in range(len(dice))]
        scores = [
            make_patient_score(name, 100, round(100 * one), predicted_pixels=100)
            for name, one in zip(names, dice, strict=True)
        ]
        split = Split(train={"a": ("a",)}, validation={"b": ("b",)}, test={n: (n,) for n in names})
        files = FoldFiles(f"run{number}", model=Path(), per_patient=Path())
        return Fold(f"fold-{number}", files, split, 0.5, {"tumour": scores})

    return fold


@pytest.fixture
def two_targets(fold):
    """Folds with the targets whole and core, and folds with core alone."""
    alone = fold(1, 0.4, 0.3), fold(2, 0.1)
    both = [
        replace(whole, targets={"whole": whole.scores, "core": core.scores})
        for whole, core in zip((fold(1, 0.9, 0.5), fold(2, 0.2)), alone, strict=True)
    ]
    return both, alone
