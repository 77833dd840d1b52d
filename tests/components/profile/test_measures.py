import numpy as np

from components.profile.measures import measure, quantiles
from components.shared.dataset.manifest import ChannelIntensity, make_manifest


def test_has_one_value_a_volume_in_the_manifests_order(make_entry):
    entries = [make_entry(2, site="DU"), make_entry(1, site="CS"), make_entry(3, site="CS")]
    data = make_manifest(entries)
    found = measure(data)
    for name in ("volume", "patient", "site", "slices", "tumour_slices", "tumour_pixels"):
        values = getattr(found, name).tolist()
        assert values == [getattr(entry, name) for entry in data.volumes], name


def test_pixels_are_those_of_the_whole_volume(make_entry):
    data = make_manifest([make_entry(1, slices=10, height=20, width=30)])
    assert measure(data).pixels.tolist() == [6000]


def test_intensities_are_volumes_by_channels(make_entry):
    channels = tuple(
        ChannelIntensity(mean=1.0, p1=0, p50=50 + channel, p99=150 + channel)
        for channel in range(3)
    )
    found = measure(make_manifest([make_entry(1, intensity=channels), make_entry(2)]))
    assert found.median_intensity.shape == found.bright_intensity.shape == (2, 3)
    assert found.median_intensity[0].tolist() == [50, 51, 52]
    assert found.bright_intensity[0].tolist() == [150, 151, 152]


def test_computes_the_fraction_of_slices_with_tumour_and_who_lacks_a_sequence(make_entry):
    entries = [
        make_entry(1, slices=40, tumour_slices=10, missing=("post-contrast",)),
        make_entry(2, slices=20, tumour_slices=0),
    ]
    found = measure(make_manifest(entries))
    np.testing.assert_array_equal(found.tumour_share, [0.25, 0])
    assert found.lacks_sequence.tolist() == [True, False]


def test_names_the_five_numbers():
    found = quantiles([5, 1, 2, 4, 3])
    assert found.model_dump() == {
        "minimum": 1,
        "lower_quartile": 2,
        "median": 3,
        "upper_quartile": 4,
        "maximum": 5,
    }


def test_nothing_has_none():
    assert quantiles([]) is None
