import numpy as np

from components.evaluate.charts import reliability, training_curves
from components.shared.scoring.scores import BINS, Reliability


def test_reliability_leaves_empty_bins_out():
    voxels, tumour = np.zeros((2, BINS), dtype=int)
    voxels[[0, 4]] = 10
    tumour[4] = 5
    probability = voxels * 0.0
    probability[4] = 4.5

    upper, lower = reliability(
        Reliability(tuple(voxels), tuple(probability), tuple(tumour), 0)
    ).axes

    (curve,) = [line for line in upper.lines if line.get_label() == "model"]
    assert np.allclose(curve.get_xydata(), [[0, 0], [0.45, 0.5]])
    assert [bar.get_height() for bar in lower.patches] == [10, 10]


def test_training_curves_show_what_the_history_holds():
    history = [
        {"epoch": 1, "train_loss": 0.9},
        {"epoch": 2, "train_loss": 0.5, "validation_dice": 0.4},
    ]

    losses, dice, rate = training_curves(history).axes

    assert [line.get_xydata().tolist() for line in losses.lines] == [[[1, 0.9], [2, 0.5]]]
    assert [line.get_xydata().tolist() for line in dice.lines] == [[[2, 0.4]]]
    assert not rate.lines
    assert dice.get_legend() is None


def test_each_of_several_targets_has_a_line():
    row = {"epoch": 1, "validation_dice": 0.6, "core/validation_dice": 0.5}
    _, dice, _ = training_curves([{"epoch": 1, "train_loss": 0.9}, row]).axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in dice.lines}
    assert lines == {"mean": [0.6], "core": [0.5]}
    assert [text.get_text() for text in dice.get_legend().get_texts()] == ["mean", "core"]
