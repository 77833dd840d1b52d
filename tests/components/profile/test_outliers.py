import pytest

from components.profile.measures import SLICE_SPACING, measure
from components.profile.outliers import find_outliers
from components.shared.dataset.manifest import ChannelIntensity, make_manifest
from components.shared.scoring.robust import FARTHEST_SCORE


def intensity(p50=20, p99=150):
    return tuple(ChannelIntensity(mean=40, p1=0, p50=p50, p99=p99) for _ in range(3))


@pytest.fixture(scope="module")
def plain(make_entry):
    """Thirty volumes alike, with a little spread."""
    return [
        make_entry(
            number,
            slices=30 + number % 5,
            tumour_slices=10,
            tumour_pixels=8000 + 100 * (number % 7),
            intensity=intensity(20 + number % 3, 150 + number % 9),
        )
        for number in range(30)
    ]


def outliers_with(plain, make_entry, **changes):
    odd = make_entry(99, **(plain[0].model_dump(include={"slices", "tumour_slices"}) | changes))
    return [o for o in find_outliers(measure(make_manifest([*plain, odd]))) if "0099" in o.volume]


def test_alike_volumes_are_no_outliers(plain):
    assert find_outliers(measure(make_manifest(plain))) == []


@pytest.mark.parametrize(
    ("changes", "measure_name"),
    [
        ({"slices": 60}, "slices"),
        ({"slices": 11}, "slices"),
        ({"tumour_pixels": 10**6}, "tumour size"),
        ({"tumour_pixels": 100}, "tumour size"),
        ({"intensity": (*intensity()[:2], *intensity(p50=90)[2:])}, "post-contrast: median"),
        ({"intensity": (*intensity(p99=20)[:1], *intensity()[1:])}, "pre-contrast: 99th"),
    ],
)
def test_finds_what_is_unusual_and_only_that(plain, make_entry, changes, measure_name):
    usual = {"tumour_pixels": 8000, "intensity": intensity()}
    (found,) = outliers_with(plain, make_entry, **(usual | changes))
    assert found.measure.startswith(measure_name)
    assert not found.usual_low <= found.value <= found.usual_high
    assert abs(found.score) > FARTHEST_SCORE
    assert (found.score > 0) == (found.value > found.usual_high)


def test_thin_slices_among_thick_ones_are_an_outlier(make_foreign):
    found = find_outliers(measure(make_foreign((1.0, 4.5, *[5.0] * 9, None))))
    assert [(one.volume, one.value) for one in found if one.measure == SLICE_SPACING] == [
        ("sub-0", 1.0)
    ]


def test_a_volume_without_tumour_is_no_outlier_by_size(plain, make_entry):
    changes = {"tumour_pixels": 0, "intensity": intensity()}
    assert outliers_with(plain, make_entry, **changes) == []


def test_a_difference_that_nobody_sees_is_none(make_entry, plain):
    equal = [entry.model_copy(update={"intensity": intensity()}) for entry in plain]
    changes = {"tumour_pixels": 8000, "intensity": intensity(p50=27)}
    assert outliers_with(equal, make_entry, **changes) == []


def test_the_most_extreme_comes_first(plain, make_entry):
    odd = [make_entry(90 + n, slices=70 + 10 * n, intensity=intensity()) for n in range(3)]
    found = find_outliers(measure(make_manifest([*plain, *odd])))
    slices = [outlier.value for outlier in found if outlier.measure == "slices"]
    assert slices == [90, 80, 70]
    assert [abs(o.score) for o in found] == sorted((abs(o.score) for o in found), reverse=True)


def test_few_volumes_show_nothing(make_entry):
    few = [make_entry(number, slices=20) for number in range(6)]
    assert find_outliers(measure(make_manifest([*few, make_entry(9, slices=500)]))) == []
