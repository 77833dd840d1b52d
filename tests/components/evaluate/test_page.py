import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from components.evaluate.page import render_evaluation
from components.evaluate.results import evaluate_test_part, ranked_volumes
from components.evaluate.settings import EvaluateSettings
from components.shared.dataset.channels import LGG_CHANNELS
from components.shared.dataset.geometry import Geometry
from components.shared.dataset.manifest import make_manifest
from components.shared.dataset.split import PARTS, make_split
from components.shared.report.overlay import draw_overlays
from components.shared.report.training_history import TrainingHistory
from components.shared.scoring.metrics import METRICS, known_metrics
from components.shared.scoring.scores import PATIENT_FIGURES
from tests.components.conftest import Answering

SETTINGS = EvaluateSettings()
_NONE = TrainingHistory()
ORIGIN = "data set dataset0, split split0, MLflow run run0"


@Answering
def bright_flair(image, _):
    return (image[..., LGG_CHANNELS.reference_index] / 255).astype(np.float32)


@Answering
def nothing(image, _):
    return np.zeros(image.shape[:3], dtype=np.float32)


def render(segmenter, dataset, history=_NONE):
    evaluation = evaluate_test_part(segmenter, dataset, SETTINGS)
    entries = dataset.manifest.by_name()
    ranked = ranked_volumes(evaluation.scores, SETTINGS.overlay_volumes)
    overlays = {
        (rank, name): draw_overlays(
            dataset.volume(entries[name]), evaluation.predictions[name].unpack()
        )
        for rank, names in ranked.items()
        for name in names
    }
    return evaluation, render_evaluation(evaluation, overlays, history, ORIGIN, SETTINGS)


@pytest.fixture(scope="module")
def rendered(dataset):
    epochs = (
        {"epoch": 4, "train_loss": 1.0, "validation_dice": 0.5},
        {"epoch": 8, "train_loss": 0.5, "validation_dice": 0.25},
    )
    history = TrainingHistory(epochs=epochs, exported=8)
    return render(bright_flair, dataset, history)


@pytest.fixture(scope="module")
def rendered_nothing(dataset):
    return render(nothing, dataset)


def test_loads_nothing_from_elsewhere(rendered):
    page = rendered[1]

    targets = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')>\s]+)""", page)
    assert targets
    assert {target.split(":")[0] if target[0] != "#" else "#" for target in targets} == {
        "data",
        "#",
    }
    assert "http://" not in page
    assert "https://" not in page


def test_shows_every_patient_and_every_number(rendered):
    evaluation, page = rendered
    text = html.unescape(page)

    for score in evaluation.scores:
        assert f"<td>{score.volume}</td>" in page
    for metric in known_metrics(evaluation.metrics):
        assert f">{metric.name}</td>" in page
        assert metric.definition in text
        assert (f'<span class="label">{metric.label}</span>' in page) == metric.headline
        assert (f">{metric.label}</th>" in page) == metric.by_group
    for figure in PATIENT_FIGURES.values():
        shown = bool(figure.label) and not figure.needs_geometry
        assert (f">{figure.label}</th>" in page) == shown
    assert not re.search(r"\bm[ml]\b", text)
    assert "The data have no spacing" in text
    for name in ("dataset0", "split0", "run0", "site CS", "size large", "Best:", "Worst:"):
        assert name in page


@pytest.mark.parametrize("unknown", [0, 1])
def test_millimeters_are_shown_only_if_all_volumes_have_them(dataset, unknown):
    geometry = Geometry.of_affine(np.diag([5, 1, 1, 1]))
    volumes = dataset.manifest.volumes  # the test part has the first ones
    known = [entry.model_copy(update={"geometry": geometry}) for entry in volumes[unknown:]]
    measured = make_manifest([*volumes[:unknown], *known])

    _, page = render(bright_flair, replace(dataset, manifest=measured))

    page = html.unescape(page)
    for metric in METRICS:
        assert (f">{metric.name}</td>" in page) == (not metric.needs_geometry or not unknown)
    assert ("the spacing of 1 of 8 volumes is unknown" in page) == bool(unknown)
    assert ("true tumour ml among these" in page) == (not unknown)
    assert "HD95, mm</th>" in page


def test_headline_stands_beside_interval_and_baseline(rendered):
    evaluation, page = rendered
    found = evaluation.metrics

    assert (
        f"95 % interval {found['patient_dice_mean_ci_low']:.3f} to "
        f"{found['patient_dice_mean_ci_high']:.3f}; all-empty prediction "
        f"{found['patient_dice_mean_empty_baseline']:.3f}"
    ) in page
    assert f"scores {found['slice_dice_mean_empty_baseline']:.3f} on these patients" in page


def test_a_model_that_marks_nothing_is_called_that(rendered, rendered_nothing):
    _, page = rendered_nothing

    assert "has not learned to find tumours" in page
    assert "The training run left no history." in page
    assert "has not learned to find tumours" not in rendered[1]
    assert "Suggested learning rate" not in page


def test_it_says_which_weights_are_exported(rendered):
    page = html.unescape(rendered[1])
    caption = (
        "Best validation Dice 0.500, in epoch 4. The exported weights are those of epoch 8 "
        "(Dice 0.250)."
    )
    assert caption in page


def test_the_curves_of_both_networks_are_shown(dataset):
    one, other = (
        TrainingHistory(
            epochs=({"epoch": epoch, "train_loss": 1.0, "validation_dice": dice},), exported=epoch
        )
        for epoch, dice in ((3, 0.25), (5, 0.75))
    )
    _, page = render(nothing, dataset, one.model_copy(update={"flair": other}))
    page = html.unescape(page)
    first, second = page.index("Dice 0.250, in epoch 3"), page.index("Dice 0.750, in epoch 5")
    assert first < page.rindex("Training of the second network") < second


def test_undefined_values_are_dashes(rendered_nothing):
    evaluation, page = rendered_nothing

    assert evaluation.metrics["hd95_undefined"] == len(evaluation.scores)
    assert "undefined for 8 of 8" in page
    assert not re.search(r">\s*(nan|None)\s*<", page)
    json.dumps(evaluation.metrics, allow_nan=False)


def test_one_patient_without_tumour_still_makes_a_page(dataset):
    parts = {part: list(dataset.entries(part)) for part in PARTS}
    only, *others = parts["test"]
    one = make_split({**parts, "train": [*parts["train"], *others], "test": [only]})

    evaluation, page = render(nothing, replace(dataset, split=one))

    assert [score.tumour_pixels for score in evaluation.scores] == [0]
    assert "no interval: it takes two patients" in page
    assert "Patients without tumour, not shown: 1" in page
    assert "patient_dice_mean_ci_low" not in evaluation.metrics


def test_says_what_the_model_leaves_out(dataset):
    _, page = render(Answering(bright_flair, min_component_fraction=0.1), dataset)
    assert "at least 10% of the pixels of the largest part. The scored model" in page
