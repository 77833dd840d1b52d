import pytest

from components.profile.attributes import describe_attributes
from components.profile.charts import attribute_charts, intensities_by_site, volume_histograms
from components.profile.measures import measure
from components.shared.dataset.manifest import make_manifest
from components.shared.report.page import draw


@pytest.mark.parametrize("patients", [1, 2, 300])
def test_draws_data_of_any_size(make_data, patients):
    data = make_data(patients)
    for figure in (
        volume_histograms(measure(data)),
        intensities_by_site(measure(data)),
        attribute_charts(describe_attributes(data)[:1]),
    ):
        assert draw(figure).startswith("data:image/svg+xml;base64,")


def test_histograms_count_every_volume_once(make_data):
    slices, share, size = volume_histograms(measure(make_data(60))).axes
    for axes in (slices, share, size):
        heights = [bar.get_height() for bars in axes.containers for bar in bars]
        assert sum(heights) == 60
    assert slices.get_xlabel() == "slices per volume"


def test_small_sites_are_put_together_when_there_are_many(make_entry):
    data = make_manifest(
        make_entry(100 * site + number, site=f"S{site:02d}")
        for site in range(12)
        for number in range(12 - site)
    )
    labels = [
        tick.get_text() for tick in intensities_by_site(measure(data)).axes[0].get_yticklabels()
    ]
    assert labels == [*(f"S{site:02d} ({12 - site})" for site in range(7)), "other sites (15)"]


def test_a_few_volumes_are_points_and_many_a_box(make_entry):
    data = make_manifest(
        make_entry(10 * size + number, site=f"S{size}") for size in (4, 5) for number in range(size)
    )
    axes = intensities_by_site(measure(data)).axes[0]
    (points,) = axes.collections
    assert len(points.get_offsets()) == 4
    assert len(axes.patches) == 1


def test_every_column_has_a_chart_of_all_its_patients(make_data):
    attributes = [a for a in describe_attributes(make_data(40)) if a.filled]
    panels = [axes for axes in attribute_charts(attributes).axes if axes.get_visible()]
    assert [axes.get_title() for axes in panels] == [a.column for a in attributes]
    for axes, attribute in zip(panels, attributes, strict=True):
        assert sum(bar.get_height() for bar in axes.patches) == attribute.filled
