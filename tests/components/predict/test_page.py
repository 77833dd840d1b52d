import numpy as np
import pytest

from components.predict.page import VolumePrediction, render_predictions, take_snapshot


def row(number, **changes):
    values = {
        "volume": f"volume {number}",
        "slices": 5,
        "tumour_pixels": 120 * number,
        "tumour_slices": number,
        "mean_probability": 0.25,
        "max_probability": 0.875,
    }
    return VolumePrediction(**(values | changes))


def refused(name, reason):
    return VolumePrediction(volume=name, status="refused", reason=reason)


def render(rows, snapshots=()):
    origin = ("models:/brainseg/3", "new-patients")
    return render_predictions(*origin, rows, snapshots, "It is 0.4.", "T2", ["tumour"])


def test_counts_predicted_refused_and_found():
    page = render([row(0), row(1), row(2), refused("torn", "slice 3 is empty")])
    figures = page.partition("Pictures")[2]
    assert "It is 0.4. The evaluation of the model used the same rule" in page
    assert "Volumes that could not be predicted: 1." in page
    assert "slice 3 is empty" in figures
    assert "models:/brainseg/3" in page


def test_a_page_without_refused_volumes_has_no_part_for_them():
    assert "Refused volumes" not in render([row(1)])


def test_each_predicted_volume_is_a_row_of_the_table():
    page = render([row(1), row(2), refused("torn", "why")])
    assert page.count("<td>volume ") == 2
    assert '<td class="number" data-value="240">240</td>' in page


def test_names_cannot_run():
    page = render([row(1, volume="<script>alert(1)</script>"), refused("<b>", "<img src=x>")])
    assert "<script>alert" not in page
    assert "<img src=x>" not in page


@pytest.mark.parametrize(
    ("tumour", "caption"),
    [(True, "scan, slice 3 of 5: 12 px"), (False, "scan, slice 3 of 5: no tumour found, middle")],
)
def test_a_snapshot_is_the_slice_with_most_tumour(make_blob, tumour, caption):
    volume = make_blob(1)
    predicted = np.zeros(volume.mask.shape, bool)
    predicted[1, 4:6, 4:6] = tumour
    predicted[2, 4:8, 4:7] = tumour
    snapshot = take_snapshot("scan", volume, predicted[None])
    assert snapshot.caption.startswith(caption)
    assert snapshot.source.startswith("data:image/webp;base64,")


def test_says_that_not_all_are_pictured(make_blob):
    volume = make_blob(1)
    snapshot = take_snapshot("scan", volume, volume.truth)
    page = render([row(1), row(2)], [snapshot])
    assert "T2 of the slice with most predicted tumour" in page
    assert "The first 1 of 2 volumes are shown" in page
    assert "The first" not in render([row(1)], [snapshot])
