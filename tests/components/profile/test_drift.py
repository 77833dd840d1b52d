import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from components.profile.drift import chance_distance, distance, measure_drift
from components.shared.dataset.channels import LGG_CHANNELS
from components.shared.dataset.manifest import ChannelIntensity, make_manifest

NUMBERS = st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(np.array)


def bright(by):
    """Intensities of a scanner that is brighter."""
    return tuple(ChannelIntensity(mean=60 + by, p1=0, p50=20 + by, p99=160 + by) for _ in range(3))


@pytest.fixture
def grow(make_data, make_entry):
    """A data set with some more patients, of a number each that nobody else has."""

    def grow(data, patients, **changes):
        came = [make_entry(1000 + number, **changes) for number in range(patients)]
        return make_manifest([*data.volumes, *came])

    return grow


def some(data, count):
    """Any of the patients; in the manifest they stand by site."""
    chosen = np.random.default_rng(0).permutation(len(data.volumes))[:count]
    return make_manifest(data.volumes[index] for index in chosen)


@given(NUMBERS, NUMBERS)
def test_the_distance_is_that_of_kolmogorov_and_smirnov(one, other):
    assert distance(one, other) == pytest.approx(
        stats.ks_2samp(one, other, method="asymp").statistic
    )


@pytest.mark.parametrize("sizes", [(5, 40), (20, 100), (200, 1000)])
def test_chance_is_seldom_beyond_its_limit(sizes):
    random = np.random.default_rng(0)
    limit = chance_distance(*sizes, 0.05)
    beyond = [
        distance(random.normal(size=sizes[0]), random.normal(size=sizes[1])) > limit
        for _ in range(2000)
    ]
    assert np.mean(beyond) <= 0.06


def test_patients_are_identified_by_name(make_data, grow, make_entry):
    data = make_data(30)
    first, second, *rest = data.volumes
    changed = first.model_copy(update={"digest": "0" * 64})
    now = grow(make_manifest([changed, *rest]), 4)
    found = measure_drift(now, data, 0.25)
    assert (found.arrived, found.left, found.changed) == (4, 1, 1)
    assert second.patient not in {entry.patient for entry in now.volumes}
    assert found.reference_id == data.dataset_id
    again = make_entry(7, patient=first.patient, volume=f"{first.patient}_20000101")
    assert measure_drift(make_manifest([*data.volumes, again]), data, 0.25).changed == 1


def test_more_of_the_same_is_no_drift(make_data):
    for seed in range(20):
        data = make_data(60 + seed)
        found = measure_drift(data, some(data, 40 + seed), 0.25)
        assert found.arrived == 20
        assert found.drifted == ()


def test_another_scanner_drifts(make_data, grow):
    data = make_data(60)
    found = measure_drift(grow(data, 20, intensity=bright(60)), data, 0.25)
    names = {shift.measure for shift in found.drifted}
    assert {"FLAIR: median", "FLAIR: 99th percentile", "pre-contrast: median"} <= names
    assert "slices per volume" not in names
    moved = next(shift for shift in found.shifts if shift.measure == "FLAIR: median")
    assert moved.distance == 1
    assert moved.new == 80 > moved.before


def test_a_new_site_missing_sequences_and_empty_masks_drift(make_data, grow):
    data = make_data(60)
    now = grow(data, 20, site="ZZ", missing=("post-contrast",), tumour_pixels=0, tumour_slices=0)
    found = {shift.measure: shift for shift in measure_drift(now, data, 0.25).shifts}
    for name in ("from site ZZ, fraction", "lack a sequence, fraction"):
        assert found[name].drifted
        assert (found[name].before, found[name].new) == (0, 1)
    assert found["volumes with tumour, fraction"].new == 0
    assert "tumour size (side of a cube, pixels)" not in found  # nobody new has one


def test_only_what_both_data_sets_have_is_compared(make_foreign, make_data):
    found = measure_drift(make_foreign(names=("T2", "PD")), make_foreign(slice_mm=(1.0,) * 5), 0.25)
    assert found.channels_not_compared == ("T1", "PD")
    shifts = {shift.measure: shift for shift in found.shifts}
    assert {name.partition(":")[0] for name in shifts if ":" in name} == {"T2"}
    assert (shifts["slice spacing, mm"].before, shifts["slice spacing, mm"].new) == (1, 5)

    other = measure_drift(make_foreign(), make_data(30), 0.25)
    assert other.channels_not_compared == (*LGG_CHANNELS.names, "T1", "T2")
    names = {shift.measure for shift in other.shifts}
    assert "tumour size (side of a cube, pixels)" in names
    assert not {name for name in names if "percentile" in name or "mm" in name}


def test_the_few_who_came_are_not_hidden_by_the_many(make_data, grow):
    data = make_data(1000)
    found = measure_drift(grow(data, 20, intensity=bright(60)), data, 0.25)
    assert any(shift.measure == "FLAIR: median" for shift in found.drifted)


def test_two_patients_prove_nothing(make_data, grow):
    data = make_data(60)
    found = measure_drift(grow(data, 2, intensity=bright(60)), data, 0.25)
    assert found.shifts[0].distance == 1
    assert found.drifted == ()


def test_a_small_shift_of_many_is_below_the_limit(make_data, grow):
    data = make_data(3000)
    now = grow(data, 1, slices=30)
    assert measure_drift(now, data, 0.25).drifted == ()
    found = measure_drift(data, some(data, 1500), 0.25)
    assert found.arrived == 1500
    assert found.drifted == ()


def test_nobody_new_is_nothing_to_compare(make_data):
    data = make_data(30)
    found = measure_drift(make_manifest(data.volumes[:20]), data, 0.25)
    assert (found.arrived, found.left, found.shifts) == (0, 10, ())


def test_all_new_is_another_source(make_data, make_entry):
    data = make_data(40)
    other = make_manifest(make_entry(2000 + number, site="ZZ") for number in range(40))
    found = measure_drift(other, data, 0.25)
    assert (found.arrived, found.left) == (40, 40)
    assert found.shifts[0].measure == "from site ZZ, fraction"
