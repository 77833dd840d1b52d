import numpy as np
import pytest

from components.shared.report.dice_charts import dice_by_group, dice_by_size


@pytest.fixture(scope="session")
def patient(make_patient_score):
    def patient(index, tumour_pixels, site="CS"):
        return make_patient_score(f"v{index:02}", tumour_pixels, tumour_pixels // 2, site=site)

    return patient


def test_dice_by_size_shows_each_patient_with_tumour_in_its_sites_color(patient):
    scores = [patient(0, 100), patient(1, 900), patient(2, 0), patient(3, 300, site="DU")]

    (axes,) = dice_by_size(scores).axes

    points = {one.get_label(): one.get_offsets().tolist() for one in axes.collections}
    assert list(points) == ["CS (2)", "DU (1)"]
    assert points["CS (2)"] == [[100, scores[0].dice], [900, scores[1].dice]]
    assert axes.get_xscale() == "log"
    colors = [tuple(one.get_facecolor()[0]) for one in axes.collections]
    assert len(set(colors)) == 2


@pytest.mark.parametrize("sizes", [[0], [11, 13], [7], [10, 100_000]])
def test_the_size_axis_always_has_a_tick(patient, sizes):
    (axes,) = dice_by_size([patient(index, size) for index, size in enumerate(sizes)]).axes

    low, high = axes.get_xlim()
    if any(sizes):
        assert any(low <= tick <= high for tick in axes.get_xticks())
        assert low < min(sizes) <= max(sizes) < high


def test_more_sites_than_colors_stay_apart(patient):
    scores = [patient(index, 100 + index, site=f"S{index:02}") for index in range(20)]

    (axes,) = dice_by_size(scores).axes

    looks = {
        (tuple(one.get_facecolor()[0]), one.get_paths()[0].vertices.tobytes())
        for one in axes.collections
    }
    assert len(looks) == 20


def test_dice_by_group_has_a_row_a_group_and_a_point_a_patient(patient):
    groups = {"site/CS": [patient(0, 10)], "size/small": [patient(n, 10 * n) for n in range(1, 9)]}

    (axes,) = dice_by_group(groups).axes

    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "site CS (1)",
        "size small (8)",
    ]
    assert [len(points.get_offsets()) for points in axes.collections] == [1, 8]
    heights = axes.collections[1].get_offsets()[:, 1]
    assert np.abs(heights - 1).max() < 0.3
